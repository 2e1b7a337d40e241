// The same page again, without its frame: what changes in a page is made in one place only, on the server.
// Elements with an id and `data-fresh` get what they hold in the page as it is now.
import { showTimes } from "./page.js";

// What holds the focus is left alone until the focus has gone.
const later = new WeakSet();

export async function refresh(also = []) {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(`The page answers ${answer.status}.`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const places = [...document.querySelectorAll("[data-fresh]")].map((one) => `#${one.id}`);
  for (const selector of [...places, ...also]) {
    const now = document.querySelector(selector), then = fresh.querySelector(selector);
    if (!now || !then) continue;
    if (now.contains(document.activeElement)) wait(now, also);
    else replace(now, then);
  }
}

function replace(now, then) {
  const chosen = new Set([...now.querySelectorAll("input:checked")].map((one) => one.value));
  now.replaceChildren(...then.childNodes);
  for (const one of now.querySelectorAll("input[type=checkbox]")) one.checked ||= chosen.has(one.value);
  showTimes(now);
}

function wait(place, also) {
  if (later.has(place)) return;
  later.add(place);
  place.addEventListener("focusout", () => {
    later.delete(place);
    setTimeout(() => refresh(also).catch(() => {}));
  }, { once: true });
}
