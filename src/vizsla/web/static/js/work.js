// Jobs at work: their bars move with what the socket tells; when a job's state changes, the page is asked anew.
import { refresh } from "./fresh.js";
import { connect } from "./live.js";
import { duration } from "./words.js";

const live = connect();
const list = document.getElementById("work");

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

let asked = null;
async function again() {
  await refresh(["#work:not([data-fresh])", "[data-state]"]);
  bindRows();
}

bindRows();
// The changes that came after the page was made are told, also those before the socket was there.
live.watch("jobs", "", list?.dataset.jobs ?? null, () => {
  asked ??= setTimeout(() => { asked = null; again().catch(() => {}); }, 300);
});
