// The form for a dataset: pictures from this browser or the server, a look at what they would become, and the order.
import { say } from "./actions.js";
import { ask, create, Problem } from "./api.js";
import { showFits } from "./fits.js";
import { clear, mark, placeOf, values } from "./forms.js";
import { show } from "./plan.js";
import { bindSource, complain, fromBrowser, named, quiet, resend, source } from "./sources.js";

const form = document.getElementById("new-dataset");
const plan = document.getElementById("plan");
const [ready, lookButton, buildButton] = ["ready", "look", "build"].map((id) => document.getElementById(id));

function wanted() {
  const found = values(form);
  delete found.from;
  found.spec ??= {};
  found.spec.source = named();
  if (!found.spec.source) {
    throw new Problem(422, { detail: fromBrowser() ? "There are no pictures yet." : "Name a folder.", where: "spec.source" });
  }
  return found;
}

// An error at the field that it is about: also where a path, or the words, name it.
function tell(problem) {
  problem.where = placeOf(problem);
  if (named() && problem.where.startsWith(named())) problem.where = "spec.source";
  problem.errors = problem.errors.map(({ field, detail }) => {
    const named = form.elements.namedItem(field) ? null : [...form.elements].find((one) => one.name.startsWith("spec.") && detail.includes(one.name.slice(5)));
    return { field: named?.name ?? field, detail };
  });
  clear(form);
  const fields = [problem.where, ...problem.errors.map(({ field }) => field)];
  if (problem.where === "spec.source" && fromBrowser()) {
    complain(problem.text);
    document.querySelector("[data-picks]").focus();
  } else if (fields.some((field) => form.elements.namedItem(field.replace(/^body\./, "")))) mark(form, problem);
  else say(buildButton, problem.text, true);
}

async function attempt(button, what) {
  clear(form);
  quiet();
  for (const field of form.elements) {
    if (field.validity?.badInput) return mark(form, { errors: [{ field: field.name, detail: "This is no number." }], text: "" });
  }
  button.disabled = true;
  try {
    await what();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    tell(problem);
  } finally {
    button.disabled = false;
  }
}

const look = () => attempt(lookButton, async () => {
  ready.textContent = "Looking at the files …";
  try {
    const { spec } = wanted();
    showFits(spec);
    counting += 1;
    const found = await ask("POST", "/api/v1/datasets/scan", { spec });
    show(plan, found);
    // Said where the pictures were brought, too: the table of what was found is far below.
    if (found.problem) tell(new Problem(422, { detail: found.problem, remedy: found.remedy, where: "spec.source" }));
  } finally {
    ready.textContent = "";
  }
});

// The counts follow the settings that they depend on; of several answers the one to the last question is shown.
let counting = 0;
async function countAgain() {
  const number = ++counting;
  plan.setAttribute("aria-busy", "true");
  try {
    const found = await ask("POST", "/api/v1/datasets/scan", { spec: wanted().spec });
    if (number === counting) show(plan, found);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (number === counting) tell(problem);
  } finally {
    if (number === counting) plan.removeAttribute("aria-busy");
  }
}

const build = () => attempt(buildButton, async () => {
  clearTimeout(recount);
  counting += 1;
  const body = wanted();
  const made = await create("/api/v1/datasets", { name: "", ...body });
  sessionStorage.setItem(`dataset ${made.thing}`, JSON.stringify(body));
  location.assign(`/datasets/${made.thing}`);
});

function shares() {
  const [val, test] = ["val", "test"].map((split) => Number(form.elements.namedItem(`spec.${split}_percent`).value) || 0);
  const parts = [Math.max(0, 100 - val - test), val, test];
  let at = 0;
  [...document.querySelectorAll("#shares rect")].forEach((part, number) => {
    part.setAttribute("x", at);
    part.setAttribute("width", Math.max(0, Math.min(100 - at, parts[number])));
    at += parts[number];
  });
  const end = test > 0 ? `${Math.round(test)} for the test at the end.` : "none for a test at the end: then every figure is from pictures that also chose the checkpoint, and flatters a little.";
  document.getElementById("shares-words").textContent = `Of 100 pictures about ${Math.round(parts[0])} to train with, ${Math.round(val)} to look at while training, ${end}`;
}

// The settings of one that could not be built, which this browser remembers; returns its upload.
function fillAgain() {
  const again = new URLSearchParams(location.search).get("again");
  const kept = again && sessionStorage.getItem(`dataset ${again}`);
  if (again && !kept) ready.textContent = "The settings of before are known only in the browser in which they were given.";
  if (!kept) return "";
  const { name, spec } = JSON.parse(kept);
  form.elements.name.value = name ?? "";
  for (const [field, value] of Object.entries(spec)) {
    const place = form.elements.namedItem(`spec.${field}`);
    if (place && !String(value).startsWith("upload:")) place.value = value;
  }
  if (spec.source.startsWith("upload:")) return spec.source.slice(7);
  form.elements.from.value = "folder";
  return "";
}

let refit = 0, recount = 0;
form.addEventListener("input", shares);
form.addEventListener("change", ({ target }) => {
  if (!plan.hidden && /^spec\.(?!source|width|height|colour|resize|interpolation|encoding)/.test(target.name)) {
    clear(form);
    clearTimeout(recount);
    recount = setTimeout(countAgain, 300);
  }
  if (!/^spec\.(width|height|colour|interpolation)$/.test(target.name)) return;
  clearTimeout(refit);
  refit = setTimeout(() => { try { showFits(wanted().spec); } catch { /* nothing to show yet */ } }, 200);
});
document.getElementById("sizes").addEventListener("click", ({ target }) => {
  if (!target.dataset.side) return;
  for (const side of ["width", "height"]) form.elements.namedItem(`spec.${side}`).value = target.dataset.side;
  form.elements.namedItem("spec.width").dispatchEvent(new Event("change", { bubbles: true }));
});
form.addEventListener("submit", (event) => { event.preventDefault(); build(); });
lookButton.addEventListener("click", look);
const before = fillAgain();
bindSource(look);
shares();
if (before) resend(before);
