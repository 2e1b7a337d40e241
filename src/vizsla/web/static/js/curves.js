// The curves of a run in memory: read once, then fed by events, and read anew when they have grown long.
import { get } from "./api.js";

const POINTS = 800, MAX_POINTS = 3000;
const OF_STEPS = ["loss", "learning_rate", "pictures_per_s"];
const OF_VALIDATIONS = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy"];

export class Curves {
  constructor(id) {
    this.id = id;
    this.next = "0";
    this.series = new Map();
  }

  #history(since) {
    const wanted = [...OF_STEPS, ...OF_VALIDATIONS].map((name) => `series=${name}`).join("&");
    return get(`/api/v1/runs/${encodeURIComponent(this.id)}/history?points=${POINTS}&since=${since}&${wanted}`);
  }

  of(name) {
    if (!this.series.has(name)) this.series.set(name, { step: [], time: [], value: [] });
    return this.series.get(name);
  }

  // All of it, each curve of so many points that show its shape.
  async load() {
    this.#take(await this.#history("0"), new Map());
  }

  // What has been added since.
  async more() {
    const found = await this.#history(this.next);
    if (found.undone_after !== null) this.undo(found.undone_after);
    this.#take(found, this.series);
  }

  #take(found, series) {
    this.series = series;
    for (const one of found.series) {
      const mine = this.of(one.name);
      for (let i = 0; i < one.step.length; i++) add(mine, one.step[i], one.elapsed_s[i], one.value[i]);
    }
    this.next = found.next;
  }

  undo(step) {
    for (const one of this.series.values()) {
      const end = one.step.findLastIndex((at) => at <= step) + 1;
      one.step.length = one.time.length = one.value.length = end;
    }
  }

  // Events from the socket, which end at the place `next`. Returns whether a curve has changed.
  heed(events, next) {
    if (Number(next) <= Number(this.next)) return false;
    this.next = next;
    let changed = false;
    for (const event of events) {
      if (event.event === "resumed") this.undo(event.step);
      const names = event.event === "step" ? OF_STEPS : ["epoch", "validation"].includes(event.event) ? OF_VALIDATIONS : [];
      for (const name of names) {
        const value = event[name]?.value ?? event[name];
        if (typeof value === "number") add(this.of(name), event.step, event.elapsed_s, value);
      }
      changed ||= names.length > 0 || event.event === "resumed";
    }
    return changed;
  }

  // Whether it is time to ask for fewer points of the same shape.
  get isLong() {
    return [...this.series.values()].some((one) => one.step.length > MAX_POINTS);
  }
}

function add(series, step, time, value) {
  if (series.step.length && step <= series.step.at(-1)) return; // told before
  series.step.push(step);
  series.time.push(time);
  series.value.push(value);
}

// A running mean that gives the past so much weight, without the pull of the beginning.
export function smoothed(values, weight) {
  let mean = 0, share = 0;
  return values.map((value) => {
    mean = mean * weight + value * (1 - weight);
    share = share * weight + (1 - weight);
    return mean / share;
  });
}

// The interval of 95 % of a share among so many pictures (Wilson score), as [low, high].
export function interval(share, num) {
  const z = 1.959963985, middle = share + (z * z) / (2 * num), wide = 1 + (z * z) / num;
  const half = z * Math.sqrt((share * (1 - share)) / num + (z * z) / (4 * num * num));
  return [(middle - half) / wide, (middle + half) / wide];
}
