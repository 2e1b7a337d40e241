// A thing in the making: when its job has ended, what came out takes the place of this page.
import { get } from "./api.js";
import { connect } from "./live.js";

const row = document.querySelector("[data-job]");

async function look() {
  const job = await get(`/api/v1/jobs/${row.dataset.job}`);
  if (!["queued", "starting", "running", "stopping"].includes(job.state)) location.reload();
}

if (row) {
  connect().watch("jobs", "", null, () => look().catch(() => {}));
  setInterval(() => document.hidden || look().catch(() => {}), 10_000);
}
