// Jobs at work: their bars move with what the socket tells; when a job's state changes, the page is asked anew.
import { refresh } from "./fresh.js";
import { connect } from "./live.js";
import { duration } from "./words.js";

const ENDED = ["done", "failed", "stopped", "lost"];
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

const left = new Map();
function heed(row, items) {
  const last = items.findLast((event) => ["step", "epoch", "progress"].includes(event.event));
  if (!last) return;
  if (last.event === "progress") return advance(row, last);
  const total = Number(row.dataset.total) || null;
  // The end of an epoch does not tell it: what was told last stands.
  const timed = items.findLast((event) => event.eta_s !== undefined);
  if (timed) left.set(row.dataset.job, `, ${duration(timed.eta_s)} left`);
  move(row, total && Math.min(1, last.step / total), `epoch ${last.epoch}${left.get(row.dataset.job) ?? ""}`);
}

// A stage: how far, and how long at the pace since it was first heard of.
const begun = new Map();
function advance(row, { stage, done, total, at }) {
  const first = begun.get(row.dataset.job);
  if (first?.stage !== stage) begun.set(row.dataset.job, { stage, done, at });
  const pace = first?.stage === stage ? (done - first.done) / (Date.parse(at) - Date.parse(first.at)) : 0;
  const left = pace > 0 && done < total ? `, ${duration((total - done) / pace / 1000)} left` : "";
  const far = total ? `: ${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : "";
  move(row, total ? done / total : null, `${stage}${far}${left}`);
  for (const one of list.querySelectorAll("[data-stage]")) {
    if (one.dataset.stage === stage) one.setAttribute("aria-current", "step");
    else one.removeAttribute("aria-current");
  }
}

function bindRows() {
  for (const row of list?.querySelectorAll("[data-job]") ?? []) {
    live.watch("job", row.dataset.job, row.dataset.next, (items) => heed(row, items));
  }
}

let asked = null;
async function again() {
  await refresh(["#work:not([data-fresh])", "[data-state]"]);
  bindRows();
}

// A page of one thing, data-ends: when its work has ended it is another page.
function heedJobs(items) {
  if (items.some(({ job, state }) => job.id === list?.dataset.ends && ENDED.includes(state))) return location.reload();
  soon(300);
}

function soon(after) {
  asked ??= setTimeout(() => { asked = null; again().catch(() => soon(5000)); }, after);
}

bindRows();
// data-changes: what the page knows. Changes after it was made are told, also those before the socket was there.
live.watch("jobs", "", list?.dataset.changes ?? null, heedJobs);
