// What a worker prints, as it is printed.
import { connect } from "./live.js";

const KEPT_LINES = 5000;

async function read(place) {
  const response = await fetch(place.dataset.log);
  if (!response.ok) throw new Error(`The log answers ${response.status}.`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    add(place, lines.filter(Boolean).map(JSON.parse));
  }
}

// By the page's socket: an answer that goes on would take one of the six connections that a browser has for a server.
const follow = (place) => connect().watch("log", place.dataset.follow, "0", (lines) => add(place, lines));

function add(place, lines) {
  const atEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
  for (const { text } of lines) {
    const line = document.createElement("div");
    line.textContent = text;
    line.hidden = !fits(place, text);
    place.append(line);
  }
  while (place.childElementCount > KEPT_LINES) place.firstElementChild.remove();
  if (atEnd) place.scrollTop = place.scrollHeight;
}

// Only the lines that hold what is asked for beside the log, in whatever case.
const wanted = (place) => place.closest(".card")?.querySelector("[data-log-filter]");
const fits = (place, text) => text.toLowerCase().includes(wanted(place)?.value.toLowerCase() ?? "");

function filter(place) {
  for (const line of place.children) line.hidden = !fits(place, line.textContent);
}

for (const place of document.querySelectorAll("[data-log]")) wanted(place)?.addEventListener("input", () => filter(place));
for (const place of document.querySelectorAll("[data-log]")) {
  if (place.dataset.follow) follow(place);
  else read(place).catch((problem) => (place.textContent = problem.message));
}
