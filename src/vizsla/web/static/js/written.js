// Names and notes. Two who write at once: the second is told, as what it saw has been changed.
import { Problem, ask } from "./api.js";
import { say } from "./actions.js";
import { mark } from "./forms.js";

const dialog = document.getElementById("rename");
document.querySelector("[data-rename]")?.addEventListener("click", () => dialog.showModal());
dialog?.querySelector("[data-close]").addEventListener("click", () => dialog.close());

for (const form of document.querySelectorAll("[data-written]")) {
  const notes = form.elements.notes;
  const seen = notes ? tagOf(`${form.dataset.written}/notes`) : null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = notes ? { notes: notes.value } : { name: form.elements.name.value };
    const tag = await seen;
    try {
      await ask("PATCH", form.dataset.written, body, tag ? { "If-Match": tag } : {});
      // The address may have the old name in it.
      if (!notes) return location.assign(form.dataset.written.replace("/api/v1", ""));
      location.hash = "notes";
      location.reload();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (notes) say(notes, problem.text, true);
      else mark(form, problem);
    }
  });
}

async function tagOf(address) {
  try {
    return (await fetch(address)).headers.get("etag");
  } catch {
    return null;
  }
}
