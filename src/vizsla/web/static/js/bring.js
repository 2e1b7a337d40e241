// A model from an archive of this computer: uploaded, then checked by the server.
import { ask, Problem } from "./api.js";
import { clear, mark } from "./forms.js";
import { Upload } from "./upload.js";

const form = document.getElementById("bring");
const progress = form?.querySelector("[data-progress]");
const tell = ({ sent, total, waits }) => {
  progress.textContent = waits ? "The server does not answer; trying again …" : `${Math.floor((100 * sent) / total)} % sent`;
};

async function send(file) {
  const upload = new Upload([{ path: file.name, file }], tell, true);
  try {
    const id = await upload.start();
    progress.textContent = "Checking it";
    const name = form.elements.name.value;
    return await ask("POST", "/api/v1/models/import", { archive: `upload:${id}`, ...(name && { name }) });
  } catch (problem) {
    await upload.drop();
    throw problem;
  }
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const card = await send(form.elements.archive.files[0]);
    clear(form);
    location.assign(`/models/${card.id}`);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    mark(form, problem);
  } finally {
    button.disabled = false;
    progress.textContent = "";
  }
});
