// Where the network looked: the heat map takes the place of the preview, for the class that is chosen.
import { explain } from "./explain.js";

const network = document.getElementById("drop").dataset;

function brought(file, link) {
  if (link) return { links: [link] };
  const form = new FormData();
  form.append("pictures", file, file.name);
  return form;
}

document.getElementById("answers").addEventListener("answered", ({ target: card, detail: { file, link, scores } }) => {
  if (!network.run || !scores.length) return;
  const why = card.querySelector("[data-why]"), select = why.querySelector("select");
  for (const [number, { label }] of scores.entries()) {
    const option = document.createElement("option");
    option.value = number;
    option.textContent = `for ${label}`;
    select.append(option);
  }
  const look = () => explain(card, network, brought(file, link), scores[Number(select.value)].label);
  why.hidden = false;
  why.querySelector("button").addEventListener("click", look);
  select.addEventListener("change", look);
});
