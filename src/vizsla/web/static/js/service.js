// Services: how they stand and what they have answered, asked for anew while somebody looks.
import { ask, get, Problem } from "./api.js";
import { clear, mark } from "./forms.js";
import { refresh } from "./fresh.js";
import { connect } from "./live.js";

const EVERY_MS = 5000;
const place = document.querySelector("[data-service]");
let timer = 0;

async function look() {
  clearTimeout(timer);
  if (!document.hidden) await refresh().catch(() => {});
  timer = setTimeout(look, EVERY_MS);
}

// Of a list: every job of a service; of a page: those of its own.
const mine = (job) => job.kind === "service" && ["", job.thing].includes(place.dataset.service);

if (place) {
  connect().watch("jobs", "", place.dataset.changes, (items) => items.some((one) => mine(one.job)) && look());
  timer = setTimeout(look, EVERY_MS);
}

// What is kept for labelling is counted by looking at the files: once, when the page is opened.
const captured = document.querySelector("[data-captured]");
const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
const cell = (text, name = "") => Object.assign(document.createElement("td"), { textContent: text, className: name });

async function showCaptured() {
  const told = captured.querySelector("[data-counted]"), kept = captured.querySelector("[data-kept]");
  try {
    const found = await get(captured.dataset.captured);
    told.textContent = found.num_pictures ? `${count(found.num_pictures, "picture")}, ${(found.num_bytes / 1e6).toFixed(1)} MB.` : "None so far.";
    kept.hidden = !found.num_pictures;
    kept.querySelector("tbody").replaceChildren(...found.classes.map(({ model, label, num_pictures: num }) => {
      const row = document.createElement("tr");
      row.append(cell(model), cell(label), cell(num.toLocaleString("en"), "num"));
      return row;
    }));
    kept.querySelector("[data-archives]").replaceChildren(...[...new Set(found.classes.map((one) => one.model))].map((model) => {
      const link = Object.assign(document.createElement("a"), { className: "button", textContent: `Download those of ${model}` });
      link.href = `${captured.dataset.captured}/archive?model=${encodeURIComponent(model)}`;
      return link;
    }));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    told.textContent = problem.text;
  }
}

if (captured) showCaptured();

const form = document.getElementById("update");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button"), { thing, address, model } = form.dataset;
  const share = Number(form.elements.part.value) / 100, newest = `${model}=${form.elements.other.value}`;
  if (!form.elements.part.value || !form.elements.part.checkValidity()) {
    mark(form, { where: "part", text: "A number from 1 to 100" });
    return;
  }
  button.disabled = true;
  try {
    // As it is now: others may have changed it since the page was made.
    const versions = (await get(thing)).models[0].versions.sort((one, other) => one.share - other.share);
    const body = share >= 1 ? { models: [newest] } : { models: [`${model}=${versions.at(-1).version}`, newest], share };
    await ask("POST", address, body);
    clear(form);
    location.reload();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    mark(form, problem);
  } finally {
    button.disabled = false;
  }
});
