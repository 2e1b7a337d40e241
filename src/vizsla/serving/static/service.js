// The page of a service: pictures that are dropped, pasted, chosen, taken or linked, and what the model sees in them.
const byId = (id) => document.getElementById(id);
const [drop, answers, model, keyForm, linkForm] = ["drop", "answers", "model", "key", "by-link"].map(byId);
const MOST_SHOWN = 60;
let key = sessionStorage.getItem("key") ?? "", served = [];

async function ask(address, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(address, { ...options, headers });
  if (answer.status === 401) {
    byId("key-wrong").textContent = key ? "This key is not known here." : "";
    keyForm.hidden = false;
    byId("key-field").focus();
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error([body.detail ?? `The service answers ${answer.status}.`, body.remedy].filter(Boolean).join(" "));
  return body;
}

const made = (name, fields = {}, ...children) => {
  const one = Object.assign(document.createElement(name), fields);
  one.append(...children);
  return one;
};

function bar(share) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), rect = document.createElementNS(space, "rect");
  svg.setAttribute("viewBox", "0 0 100 4");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  rect.setAttribute("width", (100 * share).toFixed(2));
  rect.setAttribute("height", "4");
  svg.append(rect);
  return svg;
}

function place(name, picture) {
  const words = made("div", {}, made("p", { className: "soft" }, "Looking …"));
  const item = made("li", {}, picture, words);
  if (picture.tagName === "IMG") {
    // Either way the file is needed no longer, and would stay in memory as long as the page.
    for (const end of ["load", "error"]) picture.addEventListener(end, () => URL.revokeObjectURL(picture.src));
    picture.addEventListener("error", () => picture.replaceWith(made("span", { className: "nothing soft" }, name)));
  }
  answers.prepend(item);
  while (answers.children.length > MOST_SHOWN) answers.lastChild.remove();
  return words;
}

function tell(words, { prediction, version, seconds, whole, several }) {
  if (prediction.error) return words.replaceChildren(made("p", { className: "bad" }, prediction.error.what), made("p", { className: "small soft" }, made("bdi", {}, prediction.picture)));
  const rows = prediction.scores.map(({ label, probability }) => made("li", {}, made("bdi", {}, label), made("span", {}, `${(100 * probability).toFixed(1)} %`), bar(probability)));
  const took = `${(1000 * seconds).toFixed(0)} ms in the service${several > 1 ? ` for ${several} pictures` : ""}, ${(1000 * whole).toFixed(0)} ms with the way there and back`;
  words.replaceChildren(made("ol", { className: "bars" }, ...rows), made("p", { className: "small soft" }, `${took} · version ${version}`));
}

async function look(names, pictures, options) {
  const words = names.map((name, number) => place(name, pictures[number]));
  const began = performance.now();
  try {
    const chosen = model.value ? `&model=${encodeURIComponent(model.value)}` : "";
    const found = await ask(`/predict?top=5${chosen}`, { method: "POST", ...options });
    const whole = (performance.now() - began) / 1000;
    found.predictions.forEach((prediction, number) => tell(words[number], { ...found, prediction, whole, several: names.length }));
  } catch (problem) {
    for (const one of words) one.replaceChildren(made("p", { className: "bad" }, problem.message));
  }
}

function bring(files) {
  const chosen = [...files];
  if (!chosen.length) return;
  const body = new FormData();
  for (const file of chosen) body.append("pictures", file, file.name);
  const shown = chosen.map((file) => made("img", { src: URL.createObjectURL(file), alt: file.name }));
  look(chosen.map((file) => file.name), shown, { body });
}

for (const id of ["files", "camera"]) byId(id).addEventListener("change", ({ target }) => { bring(target.files); target.value = ""; });
addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
addEventListener("dragleave", () => drop.classList.remove("over"));
addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); bring(event.dataTransfer.files); });
addEventListener("paste", (event) => bring(event.clipboardData.files));
linkForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const link = byId("link").value;
  const body = JSON.stringify({ pictures: [{ link }] });
  look([link], [made("span", { className: "nothing soft small" }, link)], { body, headers: { "Content-Type": "application/json" } });
});
keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key-field").value;
  sessionStorage.setItem("key", key);
  keyForm.hidden = true;
  begin();
});

function tellOfModel() {
  const one = served.find(({ name }) => name === (model.value || served[0].name)).versions.at(-1);
  const figure = one.figures.find(({ split }) => split === "test") ?? one.figures[0];
  const accuracy = figure?.accuracy;
  byId("about").textContent = `${one.num_classes.toLocaleString("en")} classes, ${one.network}.` + (accuracy ? ` Right on ${(100 * accuracy.value).toFixed(1)} % (${(100 * accuracy.low).toFixed(1)} to ${(100 * accuracy.high).toFixed(1)}) of ${accuracy.num_pictures.toLocaleString("en")} ${figure.split} pictures.` : "");
}

model.addEventListener("change", tellOfModel);

async function begin() {
  try {
    const { title, links, captures, models } = await ask("/about");
    served = models;
    document.title = byId("title").textContent = title;
    linkForm.hidden = !links;
    byId("captures").hidden = !captures;
    model.replaceChildren(...models.map(({ name }) => new Option(name, name)));
    byId("choices").hidden = models.length < 2;
    tellOfModel();
  } catch (problem) {
    if (keyForm.hidden) byId("about").textContent = problem.message;
  }
}

begin();
