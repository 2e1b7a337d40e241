// Pictures that are dropped, pasted, chosen or linked, and what a model sees in them. The server fetches what is linked.
import { ask, Problem } from "./api.js";

const GROUP = 8, SHOWN = 120, TOP = 5;
const SVG = "http://www.w3.org/2000/svg";
const HIDDEN = /[\x00-\x1f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const zone = document.getElementById("drop"), input = document.getElementById("pictures");
const answers = document.getElementById("answers"), told = document.getElementById("told");
const summary = document.getElementById("summary"), rows = summary.querySelector("tbody");
const byLink = document.getElementById("by-link"); // only where the server fetches pictures
const { model, maxPictures, maxBytes } = zone.dataset;
const LINK = /^https?:\/\/\S+$/i;
let waiting = [], done = [], busy = false;

export const visible = (text) =>
  text.trim() ? text.replace(HIDDEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`) : "(blank)";
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function made(tag, text, className = "") {
  const one = document.createElement(tag);
  one.textContent = text;
  one.className = className;
  return one;
}

function isolated(text, className) {
  const one = made("span", "", className);
  one.title = visible(text);
  one.append(made("bdi", visible(text)));
  return one;
}

function place(name, address) {
  const card = document.getElementById("answer").content.firstElementChild.cloneNode(true);
  const image = card.querySelector("img");
  image.addEventListener("load", () => image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 64));
  image.addEventListener("error", () => image.remove()); // a format that models read and browsers do not show
  if (address) image.src = address;
  card.querySelector("[data-file]").append(isolated(name));
  answers.prepend(card);
  return card;
}

function add(files) {
  for (const file of files) waiting.push({ name: file.name, file, card: place(file.name, URL.createObjectURL(file)) });
  begin();
}

function follow(links) {
  if (byLink) for (const link of links) waiting.push({ name: link, link, card: place(link) });
  begin();
}

function begin() {
  while (answers.childElementCount > SHOWN) answers.lastElementChild.remove();
  next();
}

// The next few that wait: files, or links.
function group() {
  const taken = [], { link } = waiting[0];
  const most = Math.min(GROUP, link ? byLink.dataset.maxLinks : maxPictures);
  let bytes = 0;
  while (waiting.length && taken.length < most && !link === !waiting[0].link && (link || !taken.length || bytes + waiting[0].file.size < 0.9 * maxBytes)) {
    bytes += waiting[0].file?.size ?? 0;
    taken.push(waiting.shift());
  }
  return taken;
}

function predict(taken) {
  const address = `/api/v1/models/${model}/predict?top=${TOP}`;
  if (taken[0].link) return ask("POST", `${address}&thumbnails=true`, { links: taken.map((one) => one.link) });
  const form = new FormData();
  for (const { file } of taken) form.append("pictures", file, file.name);
  return ask("POST", address, form);
}

async function next() {
  if (busy || !waiting.length) return;
  busy = true;
  const taken = group();
  told.textContent = waiting.length ? `${waiting.length} more wait.` : taken[0].link ? "The server fetches it." : "Looking at it.";
  try {
    const found = await predict(taken);
    taken.forEach((one, number) => show(one, found.predictions[number], found.seconds, taken.length));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    for (const one of taken) show(one, { scores: [], error: { what: problem.text } }, 0, 1);
  }
  busy = false;
  if (!waiting.length) told.textContent = summed();
  next();
}

function summed() {
  const failed = done.filter(({ error }) => error).length, seen = done.length - failed;
  return `${seen} picture${seen === 1 ? "" : "s"} looked at${failed ? `, ${failed} could not be` : ""}.`;
}

function show({ name, file, link, card }, { scores, error, thumbnail }, seconds, together) {
  done.push({ name, scores, error });
  for (const { label, probability } of scores) card.querySelector(".bars").append(bar(label, probability));
  const time = seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`;
  card.querySelector("[data-time]").textContent = error ? "" : together > 1 ? `${together} pictures in ${time}` : time;
  const problem = card.querySelector("[data-problem]");
  problem.hidden = !error;
  problem.textContent = error?.what ?? "";
  const image = card.querySelector("img");
  if (thumbnail) image.src = `data:image/jpeg;base64,${thumbnail}`;
  else if (link) image.remove();
  if (image && scores.length) image.alt = `${visible(name)}: ${visible(scores[0].label)}, ${percent(scores[0].probability)}`;
  card.dispatchEvent(new CustomEvent("answered", { bubbles: true, detail: { file, link, scores, error } }));
  list(name, scores, error);
}

function bar(label, probability) {
  const row = document.createElement("li");
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("viewBox", "0 0 100 6");
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("aria-hidden", "true");
  const part = document.createElementNS(SVG, "rect");
  part.setAttribute("width", (100 * probability).toFixed(2));
  part.setAttribute("height", "6");
  drawn.append(part);
  row.append(isolated(label, "cut"), made("span", percent(probability)), drawn);
  return row;
}

function list(name, scores, error) {
  const row = document.createElement("tr");
  const cells = [isolated(name, "cut"), error ? made("span", error.what, "problem") : isolated(scores[0].label, "cut strong")];
  cells.push(made("span", error ? "" : percent(scores[0].probability)));
  cells.push(made("span", scores.slice(1, 4).map((one) => `${visible(one.label)} ${percent(one.probability)}`).join(", "), "cut small soft"));
  cells.forEach((cell, number) => {
    const place = made("td", "", number === 2 ? "num" : "");
    place.append(cell);
    row.append(place);
  });
  rows.append(row);
  summary.hidden = done.length < 2;
}

// What a program for tables would take for a formula is told from one.
const cell = (value) => `"${String(value).replace(/^(?=[=+\-@\t\r])/, "'").replaceAll('"', '""')}"`;

document.getElementById("csv").addEventListener("click", () => {
  const head = ["picture", "predicted", "probability", "error", ...Array.from({ length: Math.max(1, ...done.map(({ scores }) => scores.length)) - 1 }, (_, i) => [`label_${i + 2}`, `probability_${i + 2}`]).flat()];
  const lines = done.map(({ name, scores, error }) => {
    const [first, ...rest] = scores;
    return [name, first?.label ?? "", first?.probability ?? "", error?.what ?? "", ...rest.flatMap((one) => [one.label, one.probability])].map(cell).join(",");
  });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${head.join(",")}\r\n${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});

document.getElementById("forget").addEventListener("click", () => {
  for (const image of answers.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  answers.replaceChildren();
  rows.replaceChildren();
  waiting = [];
  done = [];
  summary.hidden = true;
  told.textContent = "";
});

input.addEventListener("change", () => { add([...input.files]); input.value = ""; });
for (const type of ["dragover", "dragenter"]) addEventListener(type, (event) => { event.preventDefault(); zone.classList.add("over"); });
addEventListener("dragleave", (event) => event.relatedTarget ?? zone.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("over");
  bring(event.dataTransfer, "text/uri-list");
});
addEventListener("paste", (event) => bring(event.clipboardData, "text/plain", event.target));
byLink?.addEventListener("submit", (event) => {
  event.preventDefault();
  follow([byLink.elements.link.value.trim()]);
  byLink.reset();
});

// What is dropped or pasted: files, or else links, one a line. Into a field a text goes as it is.
function bring(held, kind, target) {
  if (held.files.length) return add([...held.files]);
  const lines = held.getData(kind).split("\n").map((line) => line.trim()).filter((line) => line && !line.startsWith("#"));
  if (!target?.closest?.("input, textarea") && lines.every((line) => LINK.test(line))) follow(lines);
}
