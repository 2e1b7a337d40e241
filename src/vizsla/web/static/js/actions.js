// Buttons with data-action: ask whether it is meant, ask the server, then go on or say why not.
// Buttons with data-opens: a dialog, by its id; those in it with data-closes close it.
import { ask } from "./api.js";

export function confirmed(question, yes) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-what").textContent = question;
  document.getElementById("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// A message beside what was done; people who do not see it hear it.
export function say(near, text, wrong = false) {
  const host = near.closest("form, .card, .head, td, main") ?? document.body;
  let place = host.querySelector(":scope > .said");
  if (!place) {
    place = document.createElement("p");
    place.setAttribute("role", "alert");
    host.append(place);
  }
  place.className = wrong ? "said wrong" : "said";
  place.textContent = text;
}

// A page is read anew when nothing is under way on it: that would cut off what somebody asks for meanwhile.
let underway = 0, stale = false, leaving = false;

async function act(button) {
  underway += 1;
  await carryOut(button);
  underway -= 1;
  if (stale && !underway && !leaving) location.reload();
}

async function carryOut(button) {
  const { action, address, then, body } = button.dataset;
  if (button.dataset.ask && !(await confirmed(button.dataset.ask, button.textContent.trim()))) return;
  button.disabled = true;
  try {
    const made = await ask(action, address, body ? JSON.parse(body) : undefined);
    if (!then) stale = true;
    else {
      leaving = true;
      location.assign(then === "job" ? pageOf(made) : then);
    }
  } catch (problem) {
    say(button, problem.text, true);
  } finally {
    button.disabled = false;
  }
}

// The page of what a job makes.
export function pageOf(job) {
  return `/${job.kind}s/${encodeURIComponent(job.thing)}`;
}

export function bindActions(root) {
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { action, opens, closes } = button.dataset;
    if (action) act(button);
    if (opens) document.getElementById(opens).showModal();
    if (closes !== undefined) button.closest("dialog").close();
  });
}
