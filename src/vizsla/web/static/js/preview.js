// What a training would be, as the server tells before it begins.
import { Chart } from "./charts.js";
import { counted, memory, short } from "./words.js";

const place = document.getElementById("preview");
let chart = null;

const text = (tag, content, className = "") => Object.assign(document.createElement(tag), { textContent: content, className });

function fact(title, value) {
  const pair = document.createElement("div");
  pair.append(text("dt", title), text("dd", value));
  return pair;
}

function needed(found) {
  const total = Object.entries(found).find(([name]) => name.startsWith("total"))?.[1] ?? Object.values(found).reduce((a, b) => a + b, 0);
  return `${memory(total)} a process (${Object.entries(found).filter(([name]) => !name.startsWith("total")).map(([name, bytes]) => `${name.replace(/_bytes$/, "").replaceAll("_", " ")} ${memory(bytes)}`).join(", ")})`;
}

export function show({ summary, rates, charts }) {
  place.hidden = false;
  place.querySelector("[data-about]").textContent = `${summary.network} on ${summary.dataset}`;
  const { input, settings } = summary;
  const facts = [
    ["Steps", `${counted(summary.total_steps)}: ${counted(settings.epochs)} epochs of ${counted(summary.steps_per_epoch)}`],
    ["Pictures a step", counted(summary.pictures_per_step)],
    ["Pictures", `${counted(summary.pictures.train)} to train, ${counted(summary.pictures.val)} to validate, ${counted(summary.pictures.test)} to test`],
    ["Classes", counted(summary.classes)],
    ["Input", `${input.width} × ${input.height} px, ${input.channels === 1 ? "grey" : "colour"}`],
    ["Parameters", counted(summary.num_parameters)],
    ["What is trained", settings.tune],
    ["Optimiser", `${settings.optimizer}, learning rate ${short(settings.learning_rate)}, ${settings.schedule}`],
    ["Memory of tensors, about", needed(summary.memory)],
    ["Largest batch that fits", summary.largest_batch === null ? "" : counted(summary.largest_batch)],
  ];
  place.querySelector("[data-facts]").replaceChildren(...facts.filter(([, value]) => value).map(([title, value]) => fact(title, value)));
  const changed = Object.entries(summary.changed).map(([name, { value, default: usual }]) => text("li", `${name.replaceAll("_", " ")}: ${value} (default ${usual})`));
  place.querySelector("[data-notes]").replaceChildren(...changed, ...summary.unused.map((one) => text("li", one, "unused")));
  chart ??= new Chart(place.querySelector("[data-plot]"), { synced: false });
  chart.show([{ name: "learning rate", colour: "--c1", x: rates.map(([epoch]) => epoch), y: rates.map(([, rate]) => rate) }]);
  place.querySelector("[data-augmented]").src = `data:image/png;base64,${charts.augmented}`;
  place.focus({ preventScroll: true });
  place.scrollIntoView({ block: "start" });
}
