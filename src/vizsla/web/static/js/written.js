// What people change of a thing: its name, its tags, its notes. Nobody undoes what another has changed meanwhile.
import { say } from "./actions.js";
import { ask, Problem } from "./api.js";
import { clear, mark } from "./forms.js";

const valueOf = (field) => ("list" in field.dataset ? field.value.split(",").map((one) => one.trim()).filter(Boolean) : field.value);

// The tags of the thing at the head of its page; see `tag_list` in macros.html.
function showTags(tags) {
  const place = document.querySelector("[data-tags]");
  place.hidden = !tags.length;
  place.replaceChildren(...tags.map((tag) => {
    const item = document.createElement("li"), link = document.createElement("a"), name = document.createElement("bdi");
    link.className = "tag";
    link.href = `${place.dataset.tags}?${new URLSearchParams({ tag })}`;
    name.textContent = link.title = tag;
    link.append(name);
    item.append(link);
    return item;
  }));
}

async function send(form) {
  const { written, then, part, etag } = form.dataset, body = {};
  for (const field of form.elements) if (field.name) body[field.name] = valueOf(field);
  const button = form.querySelector("button:not([type=button])");
  button.disabled = true;
  clear(form);
  try {
    await ask("PATCH", written, body, etag ? { "If-Match": etag } : {});
    if (then) return location.assign(then); // the address that the page has may be the old name
    const fresh = await fetch(`${written}/${part}`);
    if (fresh.ok) form.dataset.etag = fresh.headers.get("etag");
    if (fresh.ok && part === "tags") {
      const { tags } = await fresh.json();
      form.elements.tags.value = tags.join(", ");
      showTags(tags);
    }
    say(button, "Saved.");
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 412) problem.remedy = "Load this page again to see it; copy your text first.";
    if (form.elements.name && !problem.errors.length) problem.where = "name";
    mark(form, problem);
  } finally {
    button.disabled = false;
  }
}

for (const form of document.querySelectorAll("form[data-written]")) {
  form.addEventListener("submit", (event) => { event.preventDefault(); send(form); });
}
