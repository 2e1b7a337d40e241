// Where a network looked: its heat map takes the place of the picture in `card`.
import { ask, Problem } from "./api.js";

// network: { run, checkpoint }; body: the picture, as a form or a link, or what gets it; label: the class, or undefined for
// the surest. Of several questions about a card the last one is answered.
const last = new WeakMap();
export async function explain(card, { run, checkpoint }, body, label) {
  const mine = Symbol();
  last.set(card, mine);
  const why = card.querySelector("[data-why]"), told = card.querySelector("[data-time]");
  const asked = new URLSearchParams({ checkpoint, ...(label !== undefined && { class: label }) });
  why.querySelector("button").disabled = true;
  told.textContent = "Looking into the network.";
  try {
    const found = await ask("POST", `/api/v1/runs/${run}/explain?${asked}`, typeof body === "function" ? await body() : body);
    if (last.get(card) !== mine) return;
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
    if (last.get(card) === mine) told.textContent = problem.text;
  } finally {
    if (last.get(card) === mine) why.querySelector("button").disabled = false;
  }
}
