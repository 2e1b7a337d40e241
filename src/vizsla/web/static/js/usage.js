// What a job uses of the machine over time, asked for every few seconds while it is at work and somebody looks.
import { get } from "./api.js";
import { Chart } from "./charts.js";

// Samples of long work are further apart than this: it is asked for no more often than there are new ones.
const LEAST_MS = 5000;

function lines(samples, cores) {
  const start = Date.parse(samples[0].at);
  const x = samples.map((one) => (Date.parse(one.at) - start) / 1000);
  const line = (name, colour, of) => {
    const kept = samples.map((one, i) => [x[i], of(one)]).filter(([, value]) => value != null);
    return { name, colour, x: kept.map(([at]) => at), y: kept.map(([, value]) => value) };
  };
  const gpus = samples.at(-1).gpus.map((one) => one.name);
  const of = (name, what) => (one) => one.gpus.find((gpu) => gpu.name === name)?.[what];
  const colours = ["--c3", "--c4", "--c5", "--c6"];
  return {
    use: [line("this work", "--c1", (one) => one.cores / cores), line("the machine", "--c2", (one) => one.machine_use),
      ...gpus.map((name, i) => line(name, colours[i % 4], of(name, "use")))],
    memory: [line("this work", "--c1", (one) => one.memory_bytes / 1e9), line("the machine", "--c2", (one) => one.machine_memory_bytes / 1e9),
      ...gpus.map((name, i) => line(name, colours[i % 4], (one) => (of(name, "memory_bytes")(one) ?? null) && of(name, "memory_bytes")(one) / 1e9))],
  };
}

export async function follow(isLive) {
  const host = document.getElementById("usage");
  if (!host) return;
  const chart = (name, how) => new Chart(host.querySelector(`[data-plot="${name}"]`), { ...how, synced: false });
  const plots = { use: chart("use", { format: "share" }), memory: chart("memory") };
  const { system } = await get("/api/v1/machine");
  let inSight = true;
  new IntersectionObserver(([one]) => (inSight = one.isIntersecting)).observe(host);
  const again = async () => {
    let every = LEAST_MS;
    try {
      // What is hidden for want of samples is never in sight.
      const samples = document.hidden || !(inSight || host.hidden) ? null : await get(host.dataset.usage);
      if (samples) host.hidden = samples.length < 2;
      every = Math.max(every, 1000 * (samples?.at(-1)?.every_s ?? 0));
      if (samples?.length > 1) for (const [name, drawn] of Object.entries(lines(samples, system.cores))) plots[name].show(drawn, { axis: "time" });
    } catch (problem) {
      if (![0, 429, 503].includes(problem.status)) throw problem; // a server that is away comes back
    }
    if (isLive) setTimeout(() => again().catch(() => {}), every);
  };
  await again();
}
