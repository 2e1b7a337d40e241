// Forms that are sent as JSON, with what is wrong told at the field.
import { ask, Problem } from "./api.js";
import { say } from "./actions.js";

// The fields of a form by their names; a dot in a name nests: spec.epochs. Empty fields are left out.
export function values(form) {
  const found = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || (field.type === "radio" && !field.checked)) continue;
    const value = valueOf(field);
    if (value === undefined) continue;
    const parts = field.name.split(".");
    const last = parts.pop();
    let place = found;
    for (const part of parts) place = place[part] ??= {};
    place[last] = value;
  }
  return found;
}

function valueOf(field) {
  if (field.type === "checkbox") return field.checked;
  if (field.value === "") return undefined;
  if (field.dataset.type === "boolean") return field.value === "true";
  return field.type === "number" || field.dataset.type === "number" ? Number(field.value) : field.value;
}

// The field that an error is about: the one of its name, or of the end of its name, or the first that its text names.
function fieldOf(form, name, text) {
  const known = [...form.elements].filter((one) => one.name && one.type !== "hidden");
  const short = (one) => one.name.split(".").at(-1);
  const path = name.replace(/^body\./, "");
  const exact = known.find((one) => one.name === path) ?? known.find((one) => short(one) === path.split(".").at(-1));
  if (exact) return exact;
  const at = (one) => (short(one).length > 3 ? text.search(new RegExp(`\\b${short(one)}\\b`)) : -1);
  return known.filter((one) => at(one) >= 0).sort((a, b) => at(a) - at(b))[0];
}

// The field that a refusal is about. Of a name the server only says it in words.
export const placeOf = (problem) => problem.where || (/ named '| cannot be a name/.test(problem.message ?? "") ? "name" : "");

// Where a field is told to be wrong, and the rest of the form is not.
export function mark(form, problem) {
  clear(form);
  const where = placeOf(problem);
  const wrong = problem.errors?.length ? problem.errors : where ? [{ field: where, detail: problem.text }] : [];
  let first = null;
  for (const { field, detail } of wrong) {
    const input = fieldOf(form, field, detail);
    if (!input) continue;
    const note = document.createElement("small");
    note.className = "problem";
    note.id = `${input.id}-problem`;
    note.textContent = detail.replace(/^Value error, /, "");
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", note.id);
    (input.closest(".field") ?? input.parentElement).append(note);
    for (let fold = input.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    if (!first || input.compareDocumentPosition(first) & Node.DOCUMENT_POSITION_FOLLOWING) first = input;
  }
  if (first) first.focus();
  if (!first || wrong.length === 0) say(form.querySelector("button:not([type=button])") ?? form, problem.text, true);
}

export function clear(form) {
  for (const note of form.querySelectorAll(".problem")) note.remove();
  for (const input of form.querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    const about = document.getElementById(`${input.id}-about`);
    if (about) input.setAttribute("aria-describedby", about.id);
  }
  form.querySelector(":scope > .said")?.remove();
}

// Fills in what was asked for before, as `values` found it.
export function fillIn(form, sent, prefix = "") {
  for (const [name, value] of Object.entries(sent ?? {})) {
    const place = form.elements.namedItem(prefix + name);
    if (value !== null && typeof value === "object") fillIn(form, value, `${prefix}${name}.`);
    else if (place?.type === "checkbox") place.checked = value;
    else if (place && "value" in place) place.value = value;
  }
}

// Sends a form when it is submitted; `body` makes of its values what is sent.
export function bind(form, method, address, then, body = (sent) => sent) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button:not([type=button])");
    button.disabled = true;
    clear(form);
    try {
      const made = await ask(method, typeof address === "function" ? address() : address, body(values(form)));
      await then(made);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      mark(form, problem);
    } finally {
      button.disabled = false;
    }
  });
}
