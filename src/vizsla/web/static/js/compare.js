// Runs side by side: a curve of each in one chart, in a colour of its own.
import { Chart } from "./charts.js";
import { say } from "./actions.js";
import { Curves } from "./curves.js";
import { connect } from "./live.js";
import { asked, linesOf } from "./plots.js";

const SHOWN = { loss: ["loss", "loss", { canLog: true }], val_loss: ["loss", "val_loss", { canLog: true }], accuracy: ["accuracy", "val_accuracy", { format: "share" }], rate: ["rate", "learning_rate", { canLog: true }] };

const tools = document.getElementById("tools");
const runs = JSON.parse(document.getElementById("runs").textContent).map((run) => ({ run, curves: new Curves(run.id) }));
const charts = Object.entries(SHOWN).map(([name, [plot, series, how]]) => [plot, series, new Chart(document.querySelector(`[data-plot="${name}"]`), how)]);
const live = connect();

function draw() {
  const how = asked(tools);
  for (const [plot, series, chart] of charts) {
    const lines = runs.flatMap(({ run, curves }, i) => linesOf(plot, run, curves, how, { prefix: `${run.name}: `, only: [series], colour: `--c${i + 1}` }).map((line) => ({ ...line, name: run.name })));
    chart.show(lines, how);
  }
}

async function watch(one) {
  await one.curves.load();
  draw();
  live.watch("run", one.run.id, one.curves.next, (items, next) => {
    if (one.curves.heed(items, next)) draw();
    if (one.curves.isLong) watch(one).catch(() => {});
  });
}

tools.addEventListener("input", draw);
tools.addEventListener("submit", (event) => event.preventDefault());
for (const one of runs) watch(one).catch((problem) => say(tools, problem.text ?? String(problem), true));
