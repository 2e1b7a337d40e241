// A run that has not begun: the page goes on by itself when it does.
import { refresh } from "./fresh.js";
import { connect } from "./live.js";

const id = document.getElementById("waiting").dataset.id;
const live = connect();
let timer = 0;

async function look() {
  const response = await fetch(`/api/v1/runs/${encodeURIComponent(id)}`);
  if (response.ok) location.reload();
  else await refresh(["[data-state]"]);
}

const soon = (after) => { clearTimeout(timer); timer = setTimeout(() => look().catch(() => {}), after); };
live.watch("run", id, "0", (items) => soon(items.some((one) => one.event === "started") ? 100 : 1000));
live.watch("jobs", "", null, (items) => {
  if (items.some((one) => one.job.thing === id && ["failed", "stopped", "lost"].includes(one.job.state))) location.reload();
  soon(300);
});
