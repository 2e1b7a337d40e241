// What a worker prints, as it is printed.
const KEPT_LINES = 5000;

const FIRST_MS = 1000, LAST_MS = 15_000;

// Reads on from a place in the log: the place behind it, and whether there may be more.
async function read(place, after) {
  const from = after, began = performance.now();
  const asked = new URLSearchParams({ after, ...(place.dataset.follow && { follow: "true" }) });
  try {
    const response = await fetch(`${place.dataset.log}?${asked}`);
    if (!response.ok) return { after, more: response.status === 429 || response.status >= 500 };
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      const told = lines.filter(Boolean).map(JSON.parse);
      after = told.at(-1)?.next ?? after;
      add(place, told.filter((line) => line.text !== null));
    }
  } catch {
    return { after, more: true };
  }
  // A server that goes ends its answers as if the work had ended. Only when it has, the next answer is empty at once.
  return { after, more: Boolean(place.dataset.follow) && (after !== from || performance.now() - began > FIRST_MS) };
}

async function follow(place) {
  for (let after = "0", wait = FIRST_MS; ; wait = Math.min(1.7 * wait, LAST_MS)) {
    const found = await read(place, after);
    if (!found.more) break;
    if (found.after !== after) wait = FIRST_MS;
    after = found.after;
    await new Promise((done) => setTimeout(done, wait));
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
for (const place of document.querySelectorAll("[data-log]")) follow(place);
