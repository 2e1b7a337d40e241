// The same page again, without its frame: what changes in a page is made in one place only, on the server.
// Elements with an id and `data-fresh` get what they hold in the page as it is now.
import { showTimes } from "./page.js";

export async function refresh(also = []) {
  const text = await (await fetch(location.href, { headers: { Accept: "text/html" } })).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const places = [...document.querySelectorAll("[data-fresh]")].map((one) => `#${one.id}`);
  for (const selector of [...places, ...also]) {
    const now = document.querySelector(selector), then = fresh.querySelector(selector);
    if (!now || !then || now.contains(document.activeElement)) continue;
    const chosen = new Set([...now.querySelectorAll("input:checked")].map((one) => one.value));
    now.replaceChildren(...then.childNodes);
    for (const one of now.querySelectorAll("input[type=checkbox]")) one.checked ||= chosen.has(one.value);
    showTimes(now);
  }
}
