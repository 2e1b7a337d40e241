// What every page does: the theme, times as the reader's clock shows them, and buttons that ask the server.
import { bindActions } from "./actions.js";

const AGO = [[60, "second", 1], [3600, "minute", 60], [86400, "hour", 3600], [7 * 86400, "day", 86400]];
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

export function showTimes(root = document) {
  for (const one of root.querySelectorAll("time[datetime]")) {
    const at = new Date(one.dateTime);
    const seconds = (Date.now() - at) / 1000;
    const unit = AGO.find(([below]) => Math.abs(seconds) < below);
    one.title = at.toLocaleString();
    one.textContent = unit
      ? relative.format(-Math.round(seconds / unit[2]), unit[1])
      : at.toLocaleDateString(undefined, { year: "numeric", month: "short", day: "numeric" });
  }
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it lasts as long as the page, then */ }
  dispatchEvent(new Event("themechange"));
}

document.getElementById("theme").addEventListener("click", toggleTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "nearest", block: "nearest" });
bindActions(document);
showTimes();
setInterval(showTimes, 30_000);
