// The page of a dataset: its pictures page by page, its classes found by name and sorted by size.
import { get } from "./api.js";
import { make } from "./plan.js";

const LIMIT = 48;
const gallery = document.getElementById("gallery");
const grid = gallery.querySelector(".gallery");
const filter = gallery.querySelector("form");
const [first, next] = ["first", "next"].map((name) => gallery.querySelector(`[data-page="${name}"]`));
const { pictures, small, side } = gallery.dataset;
const pages = new Map();

// A page of pictures; the one after it is asked for before it is wanted.
function page(query) {
  const key = query.toString();
  if (!pages.has(key)) pages.set(key, get(`${pictures}?limit=${LIMIT}&${key}`).catch((problem) => { pages.delete(key); throw problem; }));
  return pages.get(key);
}

function wanted(after) {
  const query = new URLSearchParams();
  for (const name of ["split", "class"]) if (filter.elements[name].value) query.set(name, filter.elements[name].value);
  if (after && after !== "0") query.set("after", after);
  return query;
}

function shot({ index, label, path, split }) {
  const figure = make("figure", "", "shot"), link = make("a"), image = make("img"), caption = make("figcaption");
  link.href = `${pictures}/${index}`;
  image.loading = "lazy";
  image.width = image.height = 112;
  image.alt = label;
  image.className = small ? "pixels" : "";
  image.src = `${pictures}/${index}${side ? `?side=${side}` : ""}`;
  link.append(image);
  const file = make("span", "", "soft cut");
  file.title = path;
  file.append(`${split} · `, make("bdi", path.split("/").pop()));
  caption.append(make("bdi", label, "cut"), file);
  figure.append(link, caption);
  return figure;
}

let newest = 0;
async function show(query, { push = true } = {}) {
  const mine = ++newest;
  const { items, next: following } = await page(query);
  if (mine !== newest) return; // another page was asked for meanwhile
  grid.replaceChildren(...(items.length ? items.map(shot) : [make("p", "No picture of this class in this split.", "soft")]));
  const at = query.toString();
  if (push) history.pushState(null, "", `${location.pathname}${at ? `?${at}` : ""}#gallery`);
  first.hidden = !query.has("after");
  next.hidden = !following;
  next.dataset.after = following ?? "";
  if (following) {
    const then = new URLSearchParams(query);
    then.set("after", following);
    page(then).catch(() => {});
  }
}

function bindGallery() {
  next.dataset.after = new URL(next.href).searchParams.get("after") ?? "";
  if (!next.hidden) page(wanted(next.dataset.after)).catch(() => {});
  const safely = (query, how) => show(query, how).catch((problem) => grid.replaceChildren(make("p", problem.text, "said wrong")));
  filter.addEventListener("submit", (event) => { event.preventDefault(); safely(wanted()); });
  filter.addEventListener("change", () => safely(wanted()));
  first.addEventListener("click", (event) => { event.preventDefault(); safely(wanted()); });
  next.addEventListener("click", (event) => {
    event.preventDefault();
    gallery.scrollIntoView({ block: "start" });
    safely(wanted(next.dataset.after));
  });
  addEventListener("popstate", () => {
    const then = new URLSearchParams(location.search);
    for (const name of ["split", "class"]) filter.elements[name].value = then.get(name) ?? "";
    safely(wanted(then.get("after")), { push: false });
  });
  document.getElementById("classes").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    filter.elements.split.value = "";
    filter.elements.class.value = new URL(link.href).searchParams.get("class");
    safely(wanted());
    gallery.scrollIntoView({ block: "start" });
  });
}

function bindClasses() {
  const body = document.getElementById("classes");
  const rows = [...body.rows];
  document.getElementById("by-size")?.addEventListener("click", ({ target }) => {
    const largest = target.getAttribute("aria-pressed") !== "true";
    target.setAttribute("aria-pressed", String(largest));
    body.append(...(largest ? rows.toSorted((one, two) => two.dataset.size - one.dataset.size) : rows));
  });
  document.getElementById("find-class")?.addEventListener("input", ({ target }) => {
    const part = target.value.toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(part);
  });
}

bindGallery();
bindClasses();
