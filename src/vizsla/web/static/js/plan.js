// What a dataset would be, as the server found by looking: counts by class and split, and what will be rejected.
const SPLITS = ["train", "val", "test"];
const shown = (number) => number.toLocaleString("en");

export function make(kind, text = "", className = "") {
  const made = document.createElement(kind);
  if (text !== "") made.textContent = text;
  if (className) made.className = className;
  return made;
}

function table(title, heads, rows) {
  const made = make("table", "", "lines");
  made.append(make("caption", title, "unseen"));
  const first = made.createTHead().insertRow();
  heads.forEach((text, number) => {
    const cell = make("th", text, number && heads.length > 2 ? "num" : "");
    cell.scope = "col";
    first.append(cell);
  });
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((text, number) => {
      const cell = line.insertCell();
      if (number && typeof text === "number") cell.className = "num";
      const inner = make("bdi", typeof text === "number" ? shown(text) : text);
      cell.append(inner);
    });
  }
  return made;
}

export function show(place, plan) {
  const used = plan.found - plan.rejected;
  const classes = Object.entries(plan.classes);
  const counted = (split, label) => plan.counts[split]?.[label] ?? 0;
  const totals = SPLITS.map((split) => Object.values(plan.counts[split] ?? {}).reduce((sum, one) => sum + one, 0));
  place.replaceChildren(make("h2", `${shown(used)} pictures in ${shown(plan.labels.length)} classes`));
  const how = plan.exact
    ? "Every file was opened."
    : `${shown(plan.opened)} of the files were opened, ${plan.unreadable ? `and ${shown(plan.unreadable)} of them are no pictures` : "all of them pictures"}; the counts may change a little.`;
  place.append(make("p", `${shown(plan.found)} files found, ${shown(plan.rejected)} will be rejected. ${how}`, "soft small"));
  if (plan.problem) {
    const warning = make("div", "", "warning bad");
    warning.append(make("b", plan.problem), make("p", plan.remedy, "written"));
    place.append(warning);
  }
  const scroll = make("div", "", "classes");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Pictures by class and split");
  scroll.append(table("Pictures by class and split", ["Class", "Train", "Val", "Test"], [
    ...classes.map(([label]) => [label, ...SPLITS.map((split) => counted(split, label))]),
    ["All", ...totals],
  ]));
  place.append(scroll);
  if (plan.rejected) {
    const more = make("details");
    more.append(make("summary", `Rejected: ${shown(plan.rejected)} ${plan.rejected === 1 ? "file" : "files"}`));
    more.append(table("By reason", ["Reason", "Files"], Object.entries(plan.rejected_reasons)));
    const files = make("div", "", "classes");
    files.tabIndex = 0;
    files.setAttribute("role", "region");
    files.setAttribute("aria-label", "Rejected files");
    files.append(table("The first of them", ["File", "Reason"], plan.rejected_files.map((one) => [one.path, one.reason])));
    more.append(files);
    place.append(more);
  }
  place.hidden = false;
}
