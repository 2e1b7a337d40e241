// One's own account, and for admins those of others.
import { say } from "./actions.js";
import { bind } from "./forms.js";

const token = document.getElementById("token");
if (token) {
  bind(token, "POST", token.dataset.address, (made) => {
    token.reset();
    say(token.querySelector("button"), `${made.secret} is the token. It is shown only now: copy it.`);
  });
}

const change = document.getElementById("change");
if (change) bind(change, "PATCH", change.dataset.address, () => location.assign("/sign-in"));

const person = document.getElementById("person");
if (person) bind(person, "POST", person.dataset.address, () => location.reload());

const dialog = document.getElementById("edit");
if (dialog) {
  const form = document.getElementById("changing");
  let name = "";
  for (const button of document.querySelectorAll("[data-edit]")) {
    button.addEventListener("click", () => {
      form.reset();
      name = button.dataset.edit;
      document.getElementById("edit-title").textContent = `Change ${name}`;
      form.elements.role.value = button.dataset.role;
      form.elements.disabled.checked = button.dataset.disabled === "true";
      dialog.showModal();
    });
  }
  bind(form, "PATCH", () => `/api/v1/accounts/${encodeURIComponent(name)}`, () => location.reload());
}
