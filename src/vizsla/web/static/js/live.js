// One socket for a page: tells what happens in the runs and jobs that the page watches, and finds its way back.
//
//   const live = connect();
//   live.watch("run", id, after, (items) => ...);   // after: the `next` that the page knows
//   live.watch("jobs", "", null, (items) => ...);
//
// When the line breaks it tries again, later each time, and goes on from where it was: nothing is left out or told
// twice. While the page is hidden nothing comes.

const FIRST_MS = 500, LAST_MS = 15_000;

class Live {
  #watched = new Map();
  #socket = null;
  #wait = FIRST_MS;
  #timer = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.#open()));
    addEventListener("pagehide", () => this.#pause());
    addEventListener("pageshow", (event) => event.persisted && this.#open());
    this.#open();
  }

  watch(what, id, after, onItems, onGone = () => {}) {
    this.#watched.set(`${what} ${id}`, { what, id, after, onItems, onGone });
    if (this.#socket?.readyState === WebSocket.OPEN) this.#ask(`${what} ${id}`);
  }

  leave(what, id) {
    this.#watched.delete(`${what} ${id}`);
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ do: "leave", what, id }));
  }

  #ask(key) {
    const { what, id, after } = this.#watched.get(key);
    this.#socket.send(JSON.stringify({ do: "watch", what, id, after }));
  }

  #open() {
    clearTimeout(this.#timer);
    if (document.hidden || (this.#socket && this.#socket.readyState <= WebSocket.OPEN)) return;
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/live`);
    this.#socket = socket;
    socket.onopen = () => {
      this.#wait = FIRST_MS;
      show("on");
      for (const key of this.#watched.keys()) this.#ask(key);
    };
    socket.onmessage = (event) => this.#heed(JSON.parse(event.data));
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      if (document.hidden) return;
      show("off");
      this.#timer = setTimeout(() => this.#open(), this.#wait * (0.75 + Math.random() / 2));
      this.#wait = Math.min(this.#wait * 1.7, LAST_MS);
    };
  }

  #pause() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    // Closed before it is open, a socket is complained of in the console.
    if (socket?.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close();
    else socket?.close();
  }

  #heed(message) {
    const key = message.is === "jobs" ? "jobs " : `${message.what ?? "run"} ${message.id ?? ""}`;
    const watched = this.#watched.get(key);
    if (!watched) return;
    if (message.is === "gone") {
      this.#watched.delete(key);
      watched.onGone();
    } else if (message.next !== undefined) {
      watched.after = message.next;
      if (message.items) watched.onItems(message.items, message.next);
    }
  }
}

function show(state) {
  const place = document.getElementById("live");
  place.hidden = false;
  place.className = `live ${state}`;
  place.textContent = state === "on" ? "live" : "reconnecting";
}

let only = null;
export function connect() {
  only ??= new Live();
  return only;
}
