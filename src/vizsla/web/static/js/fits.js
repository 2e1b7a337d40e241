// The first picture of the source in each way of fitting it, as the server would keep it.
import { Problem } from "./api.js";

const images = [...document.querySelectorAll("[data-fit]")];
const said = document.getElementById("fits-said");
let newest = 0;

async function fit(image, spec) {
  const response = await fetch("/api/v1/datasets/fit", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ spec: { ...spec, resize: image.dataset.fit } }),
  });
  if (!response.ok) throw new Problem(response.status, await response.json());
  return URL.createObjectURL(await response.blob());
}

export async function showFits(spec) {
  const mine = ++newest;
  try {
    const found = await Promise.all(images.map((image) => fit(image, spec)));
    if (mine !== newest) return found.forEach(URL.revokeObjectURL);
    images.forEach((image, number) => {
      if (image.src) URL.revokeObjectURL(image.src);
      image.src = found[number];
      image.alt = `The first picture, by ${image.dataset.fit}`;
      image.classList.toggle("pixels", Math.max(spec.width ?? 256, spec.height ?? 256) < 100);
      image.hidden = false;
    });
    said.textContent = "The first picture, as the dataset would keep it.";
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (mine !== newest) return;
    for (const image of images) image.hidden = true;
    said.textContent = problem.text;
  }
}
