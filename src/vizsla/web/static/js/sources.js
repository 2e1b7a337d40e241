// Where the pictures of a dataset come from: files of this browser, which are sent, or a folder of the server.
import { say } from "./actions.js";
import { get, Problem } from "./api.js";
import { make } from "./plan.js";
import { ARCHIVE, chosen, dropped, Upload } from "./upload.js";

const form = document.getElementById("new-dataset");
export const drop = document.getElementById("drop");
const [sending, words, stop] = ["sending", "sending-words", "sending-stop"].map((id) => document.getElementById(id));
export const source = form.elements.namedItem("spec.source");
let upload = null, sent = "", typed = 0, onReady = () => {};

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
export const fromBrowser = () => form.elements.from.value === "browser";
// What a spec names as its source; empty where there is nothing yet.
export const named = () => (fromBrowser() ? sent && `upload:${sent}` : source?.value ?? "");
export const quiet = () => drop.closest(".card").querySelector(":scope > .said")?.remove();
export const complain = (text) => say(drop.firstElementChild, text, true);

function progress({ sent: bytes, total, files, of, waits }) {
  const share = total ? bytes / total : 0;
  sending.querySelector("rect").setAttribute("width", (100 * share).toFixed(2));
  sending.querySelector(".meter").setAttribute("aria-valuenow", Math.round(100 * share));
  const pace = bytes - progress.from.bytes, seconds = (performance.now() - progress.from.at) / 1000;
  const left = seconds > 1 && pace > 0 ? `, ${Math.ceil(((total - bytes) * seconds) / pace)} s left` : "";
  const far = of > 1 ? `${files.toLocaleString("en")} of ${of.toLocaleString("en")} files, ` : "";
  words.textContent = waits ? "The server does not answer; trying again …" : `${far}${megabytes(bytes)} of ${megabytes(total)}${left}`;
}

async function send(files) {
  quiet();
  if (!files.length) return complain("There are no files in it.");
  if (!files.some(({ path }) => path.includes("/")) && !(files.length === 1 && ARCHIVE.test(files[0].path))) {
    return complain("These are single files: bring the folder with one sub-folder a class, or a zip of it.");
  }
  upload?.stop();
  const mine = (upload = new Upload(files, (told) => mine === upload && progress(told)));
  progress.from = { bytes: 0, at: performance.now() };
  sent = "";
  sending.hidden = stop.hidden = false;
  form.elements.name.value ||= mine.name.replace(ARCHIVE, "");
  try {
    const id = await mine.start();
    if (mine !== upload) return;
    sent = id;
    words.textContent = `${files.length.toLocaleString("en")} ${files.length === 1 ? "file is" : "files are"} here, ${megabytes(mine.total)}.`;
    await onReady();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (mine === upload) words.textContent = problem.text;
  } finally {
    mine.ended = true;
    if (mine === upload) {
      stop.hidden = true;
      notSent(mine.notSent);
    }
  }
}

function notSent(all) {
  const place = document.getElementById("not-sent");
  place.hidden = !all.length;
  place.querySelector("summary").textContent = `${all.length} not sent`;
  place.querySelector("ul").replaceChildren(...all.slice(0, 200).map(({ path, why }) => {
    const line = make("li");
    line.append(make("bdi", path), make("span", ` ${why}`, "soft"));
    return line;
  }));
}

// Pictures that were sent before: an upload stays for a day.
export async function resend(id) {
  const there = await get(`/api/v1/uploads/${id}`).catch(() => null);
  if (!there || there.used_by) return;
  sent = id;
  sending.hidden = false;
  stop.hidden = true;
  words.textContent = "The pictures that were sent before are still here.";
  await onReady();
}

// `ready` is called when there are pictures to look at.
export function bindSource(ready) {
  onReady = ready;
  for (const button of document.querySelectorAll("[data-picks]")) {
    const input = document.getElementById(button.dataset.picks);
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => { const files = chosen(input); input.value = ""; send(files); });
  }
  // Anywhere on the page: a browser would leave it for a file that is dropped beside the place for it.
  addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    form.elements.from.value = "browser";
    showSource();
    dropped(event.dataTransfer).then(send);
  });
  addEventListener("beforeunload", (event) => { if (upload && !upload.ended) event.preventDefault(); });
  stop.addEventListener("click", () => upload?.stop());
  for (const one of form.elements.from) one.addEventListener("change", showSource);
  source?.addEventListener("input", complete);
  source?.addEventListener("change", () => {
    if (!source.value) return;
    form.elements.name.value ||= source.value.replace(/\/+$/, "").split("/").pop().replace(ARCHIVE, "");
    onReady();
  });
  showSource();
}

function showSource() {
  for (const part of document.querySelectorAll("[data-from]")) part.hidden = part.dataset.from !== form.elements.from.value;
}

// The folders that go on what was typed.
async function complete() {
  const mine = ++typed;
  await new Promise((done) => setTimeout(done, 150));
  if (mine !== typed) return;
  const { folders } = await get(`/api/v1/folders?path=${encodeURIComponent(source.value)}`).catch(() => ({ folders: [] }));
  if (mine !== typed) return;
  document.getElementById("folders").replaceChildren(...folders.map((path) => { const one = make("option"); one.value = path; return one; }));
}
