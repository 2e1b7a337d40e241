// The page of a picture that was judged: what mattered for a class; the arrow keys go to the pictures beside it.
import { explain } from "./explain.js";

const card = document.getElementById("judged"), why = card.querySelector("[data-why]");

if (why) {
  const { src } = card.querySelector(".seen img"), select = why.querySelector("select");
  const look = async () => {
    const form = new FormData();
    form.append("pictures", await (await fetch(src)).blob(), "picture");
    await explain(card, card.dataset, form, select.value);
  };
  why.querySelector("button").addEventListener("click", look);
  select.addEventListener("change", look);
}

addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest("input, select, textarea")) return;
  const beside = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (beside) document.querySelector(`a[rel=${beside}]`)?.click();
});
