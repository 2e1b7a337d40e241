// Which curves a chart of runs shows, and how they are asked to be drawn.
import { interval, smoothed } from "./curves.js";

export const PLOTS = {
  loss: { canLog: true },
  accuracy: { format: "share" },
  rate: { canLog: true },
  speed: {},
};

const dots = { dots: true };
const CURVES = {
  loss: [["loss", "training", "--c1"], ["train_loss", "training, each epoch", "--c3", dots], ["val_loss", "validation", "--c2", dots]],
  accuracy: [["train_accuracy", "training, each epoch", "--c3", dots], ["val_accuracy", "validation", "--c2", dots], ["val_balanced_accuracy", "validation, each class the same", "--c6", { dash: [2, 4] }]],
  rate: [["learning_rate", "learning rate", "--c1"]],
  speed: [["pictures_per_s", "pictures a second", "--c1"]],
};
const SMOOTHED = new Set(["loss", "pictures_per_s"]);

// What the form of tools asks for.
export function asked(form) {
  const { x, smooth, log } = form.elements;
  return { axis: x.value, smooth: Number(smooth.value), log: log.checked };
}

export const place = (run, axis) => (step) => (axis === "steps" ? step : step / run.steps_per_epoch);

// The lines of a plot: of one run in the colours of its curves, or of each of several in the run's own colour.
export function linesOf(plot, run, curves, { axis, smooth }, { prefix = "", only = null, colour = null, dash } = {}) {
  const lines = [];
  for (const [name, title, own, extra] of CURVES[plot]) {
    if (only && !only.includes(name)) continue;
    const series = curves.series.get(name);
    if (!series?.value.length) continue;
    const line = { name: prefix + title, colour: colour ?? own, ...extra, ...(dash ? { dash, dots: false } : {}) };
    line.x = axis === "time" ? [...series.time] : series.step.map(place(run, axis));
    line.y = [...series.value];
    if (SMOOTHED.has(name) && smooth > 0) {
      if (!prefix) lines.push({ ...line, name: `${line.name}, as it is`, pale: true });
      line.raw = line.y;
      line.y = smoothed(line.y, smooth);
    }
    if (name === "val_accuracy" && run.num_val && !prefix) line.band = line.y.map((one) => interval(one, run.num_val));
    lines.push(line);
  }
  return lines;
}

// Where something happened, along the axis that is shown.
export function marksOf(run, curves, { axis }) {
  const shown = run.marks.filter((one) => !["started", "done"].includes(one.kind));
  if (axis !== "time") return shown.map((one) => ({ ...one, x: place(run, axis)(one.step) }));
  const steps = curves.series.get("loss");
  return shown.flatMap((one) => {
    const at = steps?.step.findLastIndex((step) => step <= one.step) ?? -1;
    return at < 0 ? [] : [{ ...one, x: steps.time[at] }];
  });
}
