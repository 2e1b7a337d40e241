// The page of a run: curves that grow as it trains, how far it is, its checkpoints and notes as they change.
import { get } from "./api.js";
import { say } from "./actions.js";
import { Chart } from "./charts.js";
import { Curves } from "./curves.js";
import { bind } from "./forms.js";
import { refresh } from "./fresh.js";
import { connect } from "./live.js";
import { asked, linesOf, marksOf, PLOTS } from "./plots.js";
import { follow as followUsage } from "./usage.js";
import { duration } from "./words.js";

const run = JSON.parse(document.getElementById("run").textContent);
const tools = document.getElementById("tools");
const curves = new Curves(run.id);
const live = connect();
const plots = Object.entries(PLOTS).map(([name, how]) => [name, new Chart(document.querySelector(`[data-plot="${name}"]`), how)]);
let other = null;

function draw() {
  const how = asked(tools), marks = marksOf(run, curves, how);
  for (const [name, chart] of plots) {
    const over = other ? linesOf(name, other.run, other.curves, how, { prefix: `${other.run.name}: `, dash: [6, 4] }) : [];
    chart.show([...linesOf(name, run, curves, how), ...over], { ...how, marks });
  }
}

let left = "";
function move(items) {
  const last = items.findLast((event) => ["step", "epoch"].includes(event.event));
  const row = document.querySelector("#work [data-job]");
  if (!last || !row) return;
  const share = Math.min(1, last.step / run.total_steps), bar = row.querySelector(".meter");
  bar.querySelector("rect").setAttribute("width", (100 * share).toFixed(2));
  bar.setAttribute("aria-valuenow", Math.round(100 * share));
  const timed = items.findLast((event) => event.eta_s !== undefined);
  if (timed) left = `, ${duration(timed.eta_s)} left`;
  row.querySelector("[data-words]").textContent = `epoch ${last.epoch} of ${run.total_steps / run.steps_per_epoch}${left}`;
}

// The rest of the page follows more slowly: it is asked for anew.
const AGAIN_MS = 5000;
let due = 0, timer = 0;
function soon(after = 1500) {
  const at = Date.now() + after;
  if (due && due <= at) return;
  clearTimeout(timer);
  due = at;
  timer = setTimeout(() => { due = 0; refresh().catch(() => soon(AGAIN_MS)); }, after);
}

async function heed(items, next) {
  if (curves.heed(items, next)) draw();
  move(items);
  const happened = items.filter((event) => !["step", "validation", "epoch", "progress"].includes(event.event));
  for (const event of happened) {
    if (event.event === "extended") run.total_steps = event.total_steps;
    if (event.event !== "started") run.marks.push({ kind: event.event, at: event.at, step: event.step ?? curves.of("loss").step.at(-1) ?? 0, text: event.text ?? "" });
  }
  if (happened.length) draw();
  if (happened.length || items.some((event) => ["epoch", "validation"].includes(event.event))) soon();
  if (curves.isLong) await watch();
}

async function watch() {
  await curves.load();
  draw();
  live.watch("run", run.id, curves.next, heed);
}

live.watch("jobs", "", run.changes, (items) => {
  const mine = items.findLast((one) => one.job.thing === run.id);
  if (!mine) return;
  if (!run.live && !["done", "failed", "stopped", "lost"].includes(mine.job.state)) location.reload();
  else soon(300);
});

// Another run, drawn over this one for as long as the page is open; its address says which.
const input = tools.elements.with;
async function overlay() {
  const name = input.value.trim(), address = new URL(location.href);
  other = null;
  address.searchParams.delete("with");
  tools.querySelector(".said")?.remove();
  if (name) {
    try {
      const found = (await get(`/api/v1/runs/${encodeURIComponent(name)}`)).run;
      other = { run: found, curves: new Curves(found.id) };
      input.value = found.name;
      await other.curves.load();
      address.searchParams.set("with", found.id);
    } catch (problem) {
      other = null;
      say(input, problem.text ?? String(problem), true);
    }
  }
  history.replaceState(null, "", address);
  draw();
}

async function suggest() {
  const found = await get(`/api/v1/runs?limit=20&name=${encodeURIComponent(input.value.trim())}`);
  const names = found.items.map((one) => one.run).filter((one) => one.id !== run.id).map((one) => new Option(one.dataset.name, one.name));
  document.getElementById("tool-runs").replaceChildren(...names);
}

function follow() {
  if (other && !document.hidden) other.curves.more().then(draw, () => {});
}

let typed = 0;
input.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(() => suggest().catch(() => {}), 200); });
input.addEventListener("focus", () => suggest().catch(() => {}), { once: true });
input.addEventListener("change", overlay);
tools.addEventListener("input", (event) => event.target !== input && draw());
tools.addEventListener("submit", (event) => { event.preventDefault(); overlay(); });
setInterval(follow, 5000);

const extending = document.getElementById("extending");
if (extending) bind(extending, "POST", `/api/v1/runs/${run.id}/extend`, () => location.reload());

followUsage(run.live);
watch().catch((problem) => say(document.querySelector(".plot"), problem.text ?? String(problem), true));
input.value = new URLSearchParams(location.search).get("with") ?? "";
if (input.value) overlay();
