// Where the network looked: the heat map takes the place of the preview, for the class that is chosen.
import { ask, Problem } from "./api.js";

const { run, checkpoint } = document.getElementById("drop").dataset;

function brought(file, link) {
  if (link) return { links: [link] };
  const form = new FormData();
  form.append("pictures", file, file.name);
  return form;
}

async function explain(card, body, label) {
  const why = card.querySelector("[data-why]"), told = card.querySelector("[data-time]");
  const asked = new URLSearchParams({ checkpoint, ...(label !== undefined && { class: label }) });
  why.querySelector("button").disabled = true;
  told.textContent = "Looking into the network.";
  try {
    const found = await ask("POST", `/api/v1/runs/${run}/explain?${asked}`, body);
    const seen = card.querySelector(".seen");
    const image = seen.querySelector("img") ?? seen.appendChild(document.createElement("img"));
    image.src = `data:image/png;base64,${found.picture}`;
    image.alt = `Where the network looked for ${found.label}`;
    const [count, height, width] = found.shape;
    const faint = found.is_flat ? "Nothing in the picture speaks for it." : "The brighter, the more it spoke for the class.";
    told.textContent = `${faint} Grad-CAM at ${found.layer}: ${count} maps of ${width} × ${height}.`;
    why.querySelector("select").hidden = false;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    told.textContent = problem.text;
  } finally {
    why.querySelector("button").disabled = false;
  }
}

document.getElementById("answers").addEventListener("answered", ({ target: card, detail: { file, link, scores } }) => {
  if (!run || !scores.length) return;
  const why = card.querySelector("[data-why]"), select = why.querySelector("select");
  for (const [number, { label }] of scores.entries()) {
    const option = document.createElement("option");
    option.value = number;
    option.textContent = `for ${label}`;
    select.append(option);
  }
  const look = () => explain(card, brought(file, link), scores[Number(select.value)].label);
  why.hidden = false;
  why.querySelector("button").addEventListener("click", look);
  select.addEventListener("change", look);
});
