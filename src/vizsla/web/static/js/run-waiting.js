// A run that has not begun: the page goes on by itself when it does.
import { refresh } from "./fresh.js";
import { connect } from "./live.js";

const place = document.getElementById("waiting");
const { id, changes } = place.dataset;
const live = connect();
let timer = 0;

// When there is a run, its page is another one.
async function look() {
  timer = 0;
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok || !(await response.text()).includes('id="waiting"')) location.reload();
  else await refresh();
}

const soon = (after) => { timer ||= setTimeout(() => look().catch(() => {}), after); };
live.watch("run", id, "0", () => soon(300));
live.watch("jobs", "", changes, (items) => items.some((one) => one.job.thing === id) && soon(300));
setInterval(() => document.hidden || soon(0), 5000);
