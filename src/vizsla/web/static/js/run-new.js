// The form for a training: what is left open shows the default that it will get; a preview; then the run's page.
import { create, Problem } from "./api.js";
import { pageOf } from "./actions.js";
import { clear, fillIn, mark, values } from "./forms.js";
import { choose, chosen, tell } from "./networks.js";
import { show } from "./preview.js";

const form = document.getElementById("new");
if (form) begin();

function begin() {
  const presets = JSON.parse(document.getElementById("presets").textContent);
  const field = (name) => form.elements.namedItem(`spec.${name}`);
  // Not by form.dataset: that is the field of this name.
  const [clone, cloneDataset, begun] = ["data-clone", "data-clone-dataset", "data-begun"].map((name) => form.getAttribute(name));
  let hasWeights = true, isProposed = form.hasAttribute("data-quick");

  // As TrainingSpec.resolved() fills in what is left open.
  function defaults() {
    const preset = field("preset").value, weights = field("weights").value;
    const usual = preset === "digits" ? "scratch" : hasWeights || weights !== "auto" ? "full" : "scratch";
    const tune = field("tune").value || usual;
    const recipe = { ...presets.modern[tune], ...(preset === "digits" ? presets.digits : {}) };
    if (preset === "digits") recipe.batch_size = presets.digits_batch[chosen()] ?? recipe.batch_size;
    field("tune").options[0].textContent = `default: ${usual}`;
    for (const [name, value] of Object.entries(recipe)) {
      const input = field(name);
      if (!input || name === "tune") continue;
      if (input instanceof HTMLSelectElement) input.options[0].textContent = `default: ${{ true: "on", false: "off" }[value] ?? value}`;
      else input.placeholder = String(value);
    }
  }

  const notWithHead = (form.getAttribute("data-quick") ?? "").split(" ").filter(Boolean);
  function isAsked(name) {
    const one = field(name);
    return one?.type === "checkbox" ? one.checked : !["", "0", "none", "false"].includes(one?.value ?? "");
  }

  // Without a GPU: what takes minutes, until somebody chooses otherwise.
  function propose() {
    if (!isProposed) return;
    // What an earlier run has learned is trained on as a whole.
    const fits = field("preset").value !== "digits" && hasWeights && field("weights").value === "auto" && !notWithHead.some(isAsked);
    field("tune").value = fits ? "head" : "";
    document.getElementById("quick").hidden = !fits;
  }

  function where() {
    const chosenPlace = form.querySelector("[name='-where']:checked")?.value ?? "auto";
    const count = form.querySelector("[name='-count']"), cards = [...form.querySelectorAll("[name='-card']:checked")].map((one) => one.value);
    const device = { next: "cuda", these: cards.length ? `cuda:${cards.join(",")}` : "cuda" }[chosenPlace] ?? chosenPlace;
    field("device").value = device;
    if (chosenPlace === "next") field("processes").value = count.value;
    else if (chosenPlace === "these") field("processes").value = String(Math.max(1, cards.length));
  }

  function body() {
    where();
    const all = values(form);
    return { dataset: all.dataset, name: all.name, spec: all.spec, job: all.job };
  }

  // The settings of one that never began, which this browser remembers.
  function fillAgain() {
    const again = new URLSearchParams(location.search).get("again");
    const asked = JSON.parse((again && sessionStorage.getItem(`run ${again}`)) ?? "null");
    if (!asked) return;
    fillIn(form, asked);
    choose(asked.spec.net);
    fillWhere(asked.spec);
    isProposed &&= !asked.spec.tune;
    for (const fold of form.querySelectorAll("details")) fold.open ||= [...fold.querySelectorAll("input, select")].some((one) => asked.spec[one.name.slice(5)] !== undefined);
  }

  function fillWhere({ device = "auto", processes = 1 }) {
    const kind = device.startsWith("cuda:") ? "these" : device === "cuda" ? "next" : device;
    const place = form.querySelector(`[name='-where'][value='${kind}']`), count = form.querySelector("[name='-count']");
    if (place) place.checked = true;
    if (count) count.value = processes;
    const cards = kind === "these" ? device.replaceAll("cuda:", "").split(",") : [];
    for (const one of form.querySelectorAll("[name='-card']")) one.checked = cards.includes(one.value);
  }

  async function send(button, act) {
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    clear(form);
    try {
      await act();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      mark(form, problem);
    } finally {
      button.disabled = false;
      button.removeAttribute("aria-busy");
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(document.getElementById("begin"), async () => {
      await tell(); // what is proposed depends on it
      const { dataset, ...rest } = body();
      // A clone on the same dataset has the network as it was then, also where it is a file that has changed.
      const job = clone && begun && dataset === cloneDataset
        ? await create(`/api/v1/runs/${encodeURIComponent(clone)}/clone`, rest)
        : await create("/api/v1/runs", { dataset, ...rest });
      sessionStorage.setItem(`run ${job.thing}`, JSON.stringify({ dataset, ...rest }));
      location.assign(pageOf(job));
    });
  });
  document.getElementById("look").addEventListener("click", (event) => send(event.target, async () => {
    await tell();
    const { dataset, spec } = body();
    const found = await create("/api/v1/runs/preview", { dataset, spec });
    show(found);
  }));
  field("weights").addEventListener("change", (event) => {
    const network = event.target.selectedOptions[0].dataset.network;
    if (network) choose(network);
  });
  form.addEventListener("change", ({ target }) => {
    if (target === field("tune") && isProposed) {
      isProposed = false;
      document.getElementById("quick").hidden = true;
    }
    propose();
    defaults();
  });
  document.getElementById("networks").addEventListener("told", (event) => { hasWeights = event.detail.hasWeights; propose(); defaults(); });
  fillAgain();
  defaults();
  tell();
}
