// A chart in its card: curves by uPlot in the colours of the page, drawn once a frame, with a table of their figures.
import { percent, short, duration } from "./words.js";

const FORMATS = { share: percent, number: short };
const charts = new Set();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const faded = (value, share) => `color-mix(in srgb, ${value} ${100 * share}%, transparent)`;

// What is rounded to the same words is said once.
const told = (words) => words.map((one, i) => (one === words[i - 1] ? "" : one));

export class Chart {
  #lines = []; #marks = []; #plot = null; #shape = ""; #frame = 0; #zoomed = false; #log = false; #axis = "";

  constructor(card, { format = "number", canLog = false, range = null, synced = true } = {}) {
    this.card = card;
    this.host = card.querySelector(".chart");
    this.format = FORMATS[format];
    this.options = { canLog, range, synced };
    charts.add(this);
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(this.host);
    card.querySelector("[data-whole]").addEventListener("click", () => this.whole());
  }

  // Lines: {name, colour, x, y, dash, pale, bare, of: [low, high]}; marks: {x, kind, text}; axis: epochs, steps or time.
  show(lines, { marks = [], log = false, axis = "epochs" } = {}) {
    this.#lines = lines.filter((one) => one.x.length);
    this.#marks = marks;
    this.#log = log && this.options.canLog;
    if (axis !== this.#axis) this.#zoomed = false;
    this.#axis = axis;
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  whole() {
    this.#zoomed = false;
    this.redraw();
  }

  redraw() {
    this.#shape = "";
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const columns = this.#lines.flatMap((one) => (one.band ? [one, edge(one, 0), edge(one, 1)] : [one]));
    const shape = JSON.stringify([columns.map((one) => [one.name, one.colour, one.pale]), this.#log, this.#axis]);
    this.card.querySelector("[data-whole]").hidden = !this.#zoomed;
    this.#tell();
    if (!columns.length || !window.uPlot) return void this.#plot?.destroy(), (this.#plot = null), (this.#shape = "");
    const data = joined(columns, this.#log);
    if (shape === this.#shape && this.#plot) {
      this.#plot.setData(data, !this.#zoomed);
      if (this.#zoomed) this.#plot.redraw();
    } else {
      const range = this.#zoomed && this.#plot ? { min: this.#plot.scales.x.min, max: this.#plot.scales.x.max } : null;
      this.#plot?.destroy();
      this.#plot = new window.uPlot(this.#options(columns), data, this.host);
      this.#shape = shape;
      if (range) this.#plot.setScale("x", range);
    }
  }

  #size() {
    return { width: Math.max(200, this.host.clientWidth), height: 250 };
  }

  #options(columns) {
    const grid = { stroke: colour("--line"), width: 1 }, text = colour("--soft");
    const font = "12px Inter, system-ui, sans-serif";
    const x = this.#axis === "time" ? (value) => duration(value) : (value) => short(value);
    const bands = columns.flatMap((one, i) => (one.band ? [{ series: [i + 3, i + 2], fill: faded(colour(one.colour), 0.16) }] : []));
    return {
      ...this.#size(),
      bands,
      cursor: { drag: { x: true, y: false }, ...(this.options.synced ? { sync: { key: "curves" } } : {}) },
      scales: { x: { time: false }, y: { distr: this.#log ? 3 : 1, ...(this.options.range ? { range: this.options.range } : {}) } },
      axes: [
        { stroke: text, font, grid, ticks: grid, values: (_, ticks) => told(ticks.map(x)), size: 34 },
        { stroke: text, font, grid, ticks: grid, size: 62, values: (_, ticks) => ticks.map((one) => (one === null ? "" : this.format(one))) },
      ],
      series: [
        { label: { time: "after", steps: "step" }[this.#axis] ?? "epoch", value: (_, value) => (value == null ? "–" : x(value)) },
        ...columns.map((one) => this.#series(one)),
      ],
      hooks: {
        draw: [(plot) => this.#mark(plot)],
        setSelect: [(plot) => { this.#zoomed ||= plot.select.width > 0; this.card.querySelector("[data-whole]").hidden = !this.#zoomed; }],
      },
    };
  }

  #series(one) {
    const stroke = faded(colour(one.colour), one.pale ? 0.32 : 1);
    const value = (_, at) => (at == null ? "–" : this.format(at));
    if (one.edge) return { label: one.name, class: "unlisted", stroke: "transparent", points: { show: false } };
    return {
      label: one.name, value, stroke, width: one.pale ? 1 : 2, dash: one.dash, class: one.pale ? "unlisted" : "listed",
      points: { show: one.dots || one.x.length === 1, size: 6, stroke, fill: stroke },
    };
  }

  #mark(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.setLineDash([4, 4]);
    ctx.font = `${11 * devicePixelRatio}px Inter, system-ui, sans-serif`;
    const written = []; // words over words are none: of marks that lie close only the first is named
    for (const { x, kind } of this.#marks) {
      const at = plot.valToPos(x, "x", true);
      if (at < bbox.left || at > bbox.left + bbox.width) continue;
      ctx.strokeStyle = ctx.fillStyle = colour(["failed", "memory", "nan"].includes(kind) ? "--bad" : "--wait");
      ctx.beginPath();
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
      const right = at > bbox.left + bbox.width * 0.8;
      ctx.textAlign = right ? "right" : "left";
      const text = { nan: "not finite", memory: "out of memory" }[kind] ?? kind, from = at + (right ? -4 : 4) * devicePixelRatio;
      const [low, high] = right ? [from - ctx.measureText(text).width, from] : [from, from + ctx.measureText(text).width];
      if (written.some((one) => low < one[1] && high > one[0])) continue;
      written.push([low, high]);
      ctx.fillText(text, from, bbox.top + 12 * devicePixelRatio);
    }
    ctx.restore();
  }

  // What the curves say, for those who do not see them and those who want the figures.
  #tell() {
    const rows = this.#lines.filter((one) => !one.pale).map((one) => {
      const y = one.raw ?? one.y, row = document.createElement("tr"), name = document.createElement("th");
      name.scope = "row";
      const key = document.createElement("span"), said = document.createElement("bdi");
      key.className = `key ${one.colour.slice(2)}`;
      said.textContent = said.title = one.name;
      name.append(key, said);
      const figures = [y.at(-1), y.reduce((a, b) => Math.min(a, b)), y.reduce((a, b) => Math.max(a, b))];
      row.append(name, ...figures.map((value) => Object.assign(document.createElement("td"), { className: "num", textContent: this.format(value) })));
      return row;
    });
    this.card.querySelector(".plain tbody").replaceChildren(...rows);
  }
}

const edge = (one, which) => ({ ...one, name: `${one.name} ${which ? "at most" : "at least"}`, y: one.band.map((pair) => pair[which]), band: null, edge: true });

function joined(lines, log) {
  const y = (values) => (log ? values.map((one) => (one > 0 ? one : null)) : values);
  return window.uPlot.join(lines.map((one) => [one.x, y(one.y)]));
}

addEventListener("themechange", () => charts.forEach((one) => one.redraw()));
