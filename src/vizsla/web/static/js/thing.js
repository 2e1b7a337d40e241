// What people change of a thing: its name, its notes. Nobody undoes what another has changed meanwhile.
import { say } from "./actions.js";
import { ask, Problem } from "./api.js";
import { clear, mark } from "./forms.js";

async function send(form) {
  const body = {};
  for (const field of form.elements) if (field.name) body[field.name] = field.value;
  const button = form.querySelector("button:not([type=button])");
  button.disabled = true;
  try {
    const { tag } = form.dataset;
    await ask("PATCH", form.dataset.patch, body, tag ? { "If-Match": tag } : {});
    clear(form);
    if (!form.dataset.said) return location.reload();
    const fresh = await fetch(`${form.dataset.patch}/notes`);
    if (fresh.ok && tag) form.dataset.tag = fresh.headers.get("etag");
    say(button, form.dataset.said);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 412) problem.remedy = "Load this page again to see it; copy your text first.";
    if (form.elements.name && !problem.errors.length) problem.where = "name";
    mark(form, problem);
  } finally {
    button.disabled = false;
  }
}

for (const form of document.querySelectorAll("form[data-patch]")) {
  form.addEventListener("submit", (event) => { event.preventDefault(); send(form); });
}
for (const button of document.querySelectorAll("[data-opens]")) {
  const dialog = document.getElementById(button.dataset.opens);
  button.addEventListener("click", () => dialog.showModal());
  dialog.querySelector("[data-closes]").addEventListener("click", () => dialog.close());
}
