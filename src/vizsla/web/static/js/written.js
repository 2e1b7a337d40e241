// What people change of a thing: its name, its notes. Nobody undoes what another has changed meanwhile.
import { say } from "./actions.js";
import { ask, Problem } from "./api.js";
import { clear, mark } from "./forms.js";

async function send(form) {
  const { written, then, tag } = form.dataset, body = {};
  for (const field of form.elements) if (field.name) body[field.name] = field.value;
  const button = form.querySelector("button:not([type=button])");
  button.disabled = true;
  clear(form);
  try {
    await ask("PATCH", written, body, tag ? { "If-Match": tag } : {});
    if (then) return location.assign(then); // the address that the page has may be the old name
    const fresh = await fetch(`${written}/notes`);
    if (fresh.ok) form.dataset.tag = fresh.headers.get("etag");
    say(button, "Saved.");
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 412) problem.remedy = "Load this page again to see it; copy your text first.";
    if (form.elements.name && !problem.errors.length) problem.where = "name";
    mark(form, problem);
  } finally {
    button.disabled = false;
  }
}

for (const form of document.querySelectorAll("form[data-written]")) {
  form.addEventListener("submit", (event) => { event.preventDefault(); send(form); });
}
