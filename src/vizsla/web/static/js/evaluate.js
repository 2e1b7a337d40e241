// Forms that put work into the queue, and then go to the page of what comes of it, or to the one that data-then names.
import { pageOf } from "./actions.js";
import { create, Problem } from "./api.js";
import { clear, mark, values } from "./forms.js";

const ADDRESSES = { evaluate: "/api/v1/evaluations", export: "/api/v1/models", predict: "/api/v1/predictions", serve: "/api/v1/services" };
// What a form sends, where that is not its fields as they are.
const BODIES = { serve: (sent) => ({ ...sent, models: [sent.models] }) };

for (const [id, address] of Object.entries(ADDRESSES)) {
  const form = document.getElementById(id);
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const job = await create(address, (BODIES[id] ?? ((sent) => sent))(values(form)));
      clear(form);
      location.assign(form.dataset.then ? `${form.dataset.then}?job=${job.id}` : pageOf(job));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      mark(form, problem);
    } finally {
      button.disabled = false;
    }
  });
}
