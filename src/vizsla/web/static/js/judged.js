// The page of a picture that was judged: what mattered for a class; the arrow keys go to the pictures beside it.
import { Problem } from "./api.js";
import { explain } from "./explain.js";

const card = document.getElementById("judged"), why = card.querySelector("[data-why]");

async function picture(address) {
  const answer = await fetch(address).catch(() => null);
  if (!answer?.ok) throw new Problem(answer?.status ?? 0, { detail: "The picture is not to be had.", remedy: "Load the page again." });
  const form = new FormData();
  form.append("pictures", await answer.blob(), "picture");
  return form;
}

if (why) {
  const { src } = card.querySelector(".seen img"), select = why.querySelector("select");
  const look = () => explain(card, card.dataset, () => picture(src), select.selectedOptions[0].dataset.label);
  why.querySelector("button").addEventListener("click", look);
  select.addEventListener("change", look);
}

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.repeat || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest("input, select, textarea") || document.querySelector("dialog[open]")) return;
  const beside = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (beside) document.querySelector(`a[rel=${beside}]`)?.click();
});
