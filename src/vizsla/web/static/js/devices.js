// How busy the devices are, every few seconds while somebody looks.
const strip = document.querySelector(".strip");

async function refresh() {
  if (!document.hidden) {
    const text = await (await fetch(location.href, { headers: { Accept: "text/html" } })).text();
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector(".strip");
    if (fresh) strip.replaceChildren(...fresh.childNodes);
  }
  setTimeout(again, 3000);
}

const again = () => refresh().catch(() => setTimeout(again, 10_000));
setTimeout(again, 3000);
