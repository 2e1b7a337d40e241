// What each layer of a network makes of a picture; a layer opens with pictures of its values and weights.
import { ask, Problem } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";
const zone = document.getElementById("drop"), told = document.getElementById("told");
const section = document.getElementById("layers"), dialog = document.getElementById("layer");
let file = null;

const figure = (value) => (value === null ? "–" : Math.abs(value) >= 1e4 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : value.toPrecision(3));

function made(tag, text = "", className = "") {
  const one = document.createElement(tag);
  one.textContent = text;
  one.className = className;
  return one;
}

async function look(layer) {
  const form = new FormData();
  form.append("pictures", file, file.name ?? "picture.png");
  const asked = new URLSearchParams({ checkpoint: zone.dataset.checkpoint, ...(layer && { layer }) });
  return ask("POST", `/api/v1/runs/${zone.dataset.run}/layers?${asked}`, form);
}

function histogram({ counts, edges }) {
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("class", "histogram");
  drawn.setAttribute("viewBox", `0 0 ${Math.max(counts.length, 1)} 30`);
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("role", "img");
  drawn.setAttribute("aria-label", edges.length ? `Values from ${figure(edges[0])} to ${figure(edges[1])}` : "No values");
  const most = Math.max(...counts, 1);
  counts.forEach((count, place) => {
    const bar = document.createElementNS(SVG, "rect");
    const height = 30 * Math.sqrt(count / most); // the root: the few are seen beside the many
    for (const [name, value] of Object.entries({ x: place, y: 30 - height, width: 0.9, height })) bar.setAttribute(name, value);
    drawn.append(bar);
  });
  return drawn;
}

function row(layer) {
  const line = document.createElement("tr");
  const open = made("button", layer.name, "quiet cut");
  open.type = "button";
  open.addEventListener("click", () => show(layer.name));
  const parts = [open, layer.kind, layer.shape.join(" × "), layer.num_parameters.toLocaleString("en"), figure(layer.activation.mean), figure(layer.activation.deviation), histogram(layer.activation)];
  const labels = ["", "", "output", "parameters", "mean", "deviation", ""];
  parts.forEach((part, number) => {
    const cell = made("td", "", number > 2 && number < 6 ? "num" : "");
    if (labels[number]) cell.dataset.label = labels[number];
    cell.append(part);
    line.append(cell);
  });
  return line;
}

function drawn(title, part) {
  const found = made("section", "", "values");
  found.append(made("h3", `${title}, ${part.shape.join(" × ")}`));
  if (part.picture) {
    const image = document.createElement("img");
    image.src = `data:image/png;base64,${part.picture}`;
    image.alt = `${title} as grey levels, dark for the least`;
    found.append(image);
    if (part.tiles > part.shown) found.append(made("p", `The first ${part.shown} of ${part.tiles.toLocaleString("en")}.`, "small soft"));
  }
  const range = part.edges.length ? `, from ${figure(part.edges[0])} to ${figure(part.edges[1])}` : "";
  const lost = part.num_not_finite ? `; ${part.num_not_finite} are no numbers` : "";
  found.append(histogram(part), made("p", `Mean ${figure(part.mean)}, deviation ${figure(part.deviation)}${range}${lost}.`, "small soft"));
  return found;
}

async function show(name) {
  const place = document.getElementById("drawn");
  document.getElementById("layer-name").textContent = name;
  place.replaceChildren(made("p", "Looking at it.", "soft"));
  dialog.showModal();
  try {
    const { layer } = await look(name);
    place.replaceChildren(drawn("What it makes of the picture", layer.activation), ...layer.weights.map((one) => drawn(one.name, one)));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    place.replaceChildren(made("p", problem.text, "problem"));
  }
}

async function take(chosen) {
  if (!chosen) return;
  file = chosen;
  told.textContent = "Looking into the network.";
  try {
    const { layers } = await look();
    section.querySelector("tbody").replaceChildren(...layers.map(row));
    section.hidden = false;
    told.textContent = `${layers.length} layers, in the order in which they are done. Open one by its name.`;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    told.textContent = problem.text;
  }
}

if (zone) {
  const input = document.getElementById("picture");
  input.addEventListener("change", () => take(input.files[0]));
  for (const type of ["dragover", "dragenter"]) addEventListener(type, (event) => event.preventDefault());
  addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
  addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  if (zone.dataset.picture) fetch(zone.dataset.picture).then(async (answer) => (answer.ok ? take(await answer.blob()) : (told.textContent = "The dataset has no such picture.")));
}
