// What a worker prints, as it is printed.
const KEPT_LINES = 5000;

async function follow(place) {
  const response = await fetch(`${place.dataset.log}${place.dataset.follow ? "?follow=true" : ""}`);
  if (!response.ok) {
    place.textContent = "Nothing was printed.";
    return;
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    add(place, lines.filter(Boolean).map(JSON.parse).filter((line) => line.text !== null));
  }
  if (!place.childElementCount) place.textContent = "Nothing was printed.";
}

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
for (const place of document.querySelectorAll("[data-log]")) follow(place).catch(() => {});
