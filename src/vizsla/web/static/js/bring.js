// A model from an archive of this computer: uploaded in pieces, then checked by the server.
import { ask, Problem } from "./api.js";
import { clear, mark } from "./forms.js";

const PIECE_BYTES = 8 * 2 ** 20;
const form = document.getElementById("bring");
const progress = form?.querySelector("[data-progress]");

async function send(file) {
  const upload = await ask("POST", "/api/v1/uploads", { name: file.name, kind: "archive", size: file.size });
  try {
    for (let offset = 0; offset < file.size; offset += PIECE_BYTES) {
      progress.textContent = `${Math.floor((100 * offset) / file.size)} % sent`;
      const piece = file.slice(offset, offset + PIECE_BYTES);
      await ask("PATCH", `/api/v1/uploads/${upload.id}`, piece, { "Upload-Offset": String(offset), "Content-Type": "application/octet-stream" });
    }
    progress.textContent = "Checking it";
    const name = form.elements.name.value;
    return await ask("POST", "/api/v1/models/import", { archive: `upload:${upload.id}`, ...(name && { name }) });
  } catch (problem) {
    await ask("DELETE", `/api/v1/uploads/${upload.id}`).catch(() => {});
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
