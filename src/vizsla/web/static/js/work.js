// Jobs at work: their bars move with what the socket tells; when a job's state changes, the page is asked anew.
import { connect } from "./live.js";

const live = connect();
const list = document.getElementById("work");

export function duration(seconds) {
  if (seconds < 99.5) return `${seconds.toFixed(0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function move(row, share, words) {
  const bar = row.querySelector(".meter");
  if (share !== null) {
    bar.querySelector("rect").setAttribute("width", (100 * share).toFixed(2));
    bar.setAttribute("aria-valuenow", Math.round(100 * share));
  }
  row.querySelector("[data-words]").textContent = words;
}

function heed(row, items) {
  const last = items.findLast((event) => ["step", "epoch", "progress"].includes(event.event));
  if (!last) return;
  if (last.event === "progress") return move(row, last.total ? last.done / last.total : null, last.stage);
  const total = Number(row.dataset.total) || null;
  const left = last.eta_s === undefined ? "" : `, ${duration(last.eta_s)} left`;
  move(row, total && Math.min(1, last.step / total), `epoch ${last.epoch}${left}`);
}

function bindRows() {
  for (const row of list?.querySelectorAll("[data-job]") ?? []) {
    const { kind, thing, next } = row.dataset;
    if (kind === "run") live.watch("run", thing, next, (items) => heed(row, items));
  }
}

// The same page again, without its frame: what the list shows is made in one place only.
let asked = null;
async function refresh() {
  const text = await (await fetch(location.href, { headers: { Accept: "text/html" } })).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const selector of ["#work", "[data-state]"]) {
    const now = document.querySelector(selector), then = fresh.querySelector(selector);
    if (now && then) now.replaceChildren(...then.childNodes);
  }
  bindRows();
}

bindRows();
live.watch("jobs", "", null, () => {
  clearTimeout(asked);
  asked = setTimeout(() => refresh().catch(() => {}), 300);
});
