// Who follows a link from elsewhere comes here though they have signed in: their cookie is not sent with such links.
import { bind } from "./forms.js";

const form = document.getElementById("sign-in");
const onward = () => location.replace(form.dataset.next);

bind(form, "POST", form.action, onward);
fetch("/api/v1/session").then((response) => response.ok && onward(), () => {});
