// Files from this browser to an upload of the server: in pieces, again after a cut line, and on from where it was.
import { ask, get, Problem } from "./api.js";

const PIECE_BYTES = 8 * 2 ** 20, PICTURE_BYTES = 16 * 2 ** 20, AT_ONCE = 4;
const FIRST_MS = 500, LAST_MS = 15_000;
const CLUTTER = /^(\..*|__macosx|thumbs\.db|desktop\.ini)$/i;
export const ARCHIVE = /\.(zip|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))$/i;

// What was dropped, as [{path, file}]; folders are walked. The entries have to be asked for before anything is awaited.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = [];
  for (const entry of entries) await walk(entry, "", found);
  return found;
}

async function walk(entry, above, found) {
  if (CLUTTER.test(entry.name)) return;
  const path = above + entry.name;
  if (entry.isFile) {
    found.push({ path, file: await new Promise((done, wrong) => entry.file(done, wrong)) });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, wrong) => reader.readEntries(done, wrong)); // a hundred at a time
    if (!some.length) return;
    for (const one of some) await walk(one, `${path}/`, found);
  }
}

// What was chosen with a file dialog.
export function chosen(input) {
  const all = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  return all.filter(({ path }) => !path.split("/").some((part) => CLUTTER.test(part)));
}

// An upload under way. `tell` hears {sent, total, files, of, waits}; `start` gives its id.
export class Upload {
  notSent = [];
  ended = false;
  #files;
  #tell;
  #sent = 0;
  #done = 0;
  #stopped = false;
  #id = "";

  constructor(files, tell, isArchive = files.length === 1 && ARCHIVE.test(files[0].path)) {
    this.#files = files;
    this.#tell = tell;
    this.isArchive = isArchive;
    this.total = files.reduce((sum, { file }) => sum + file.size, 0);
  }

  get address() { return `/api/v1/uploads/${this.#id}`; }
  get name() { return this.isArchive ? this.#files[0].path : this.#files[0].path.split("/")[0]; }

  stop() { this.#stopped = true; }

  // What came of it is not wanted any more.
  async drop() {
    this.stop();
    if (this.#id) await ask("DELETE", this.address).catch(() => {});
  }

  async start() {
    const there = await this.#begin();
    if (this.isArchive) await this.#sendArchive(there);
    else await this.#sendFolder(there);
    return this.#id;
  }

  // The upload of these files that was begun before, or a new one.
  async #begin() {
    const newest = this.#files.reduce((last, { file }) => Math.max(last, file.lastModified), 0);
    const key = `upload ${this.name} ${this.#files.length} ${this.total} ${newest}`;
    const known = localStorage.getItem(key);
    if (known) {
      const there = await this.#again(() => get(`/api/v1/uploads/${known}`)).catch(() => null);
      if (there && !there.used_by) { this.#id = known; return there; }
    }
    const kind = this.isArchive ? { kind: "archive", size: this.total } : { kind: "folder" };
    const made = await this.#again(() => ask("POST", "/api/v1/uploads", { name: this.name.slice(0, 200), ...kind }));
    this.#id = made.id;
    localStorage.setItem(key, made.id);
    return made;
  }

  async #sendArchive(there) {
    const { file } = this.#files[0];
    let { offset } = there;
    for (;;) {
      this.#sent = offset;
      this.#say(offset === file.size ? 1 : 0);
      if (offset >= file.size) return;
      const from = offset;
      offset = await this.#again(async () => {
        const piece = file.slice(from, from + PIECE_BYTES);
        try {
          return (await ask("PATCH", this.address, piece, { "Upload-Offset": `${from}` })).offset;
        } catch (problem) {
          if (problem.status !== 409) throw problem;
          return (await get(this.address)).offset; // a piece whose answer was lost has come
        }
      });
    }
  }

  async #sendFolder(there) {
    const come = there.num_pictures ? await this.#come() : new Map();
    const queue = this.#files.values();
    const sender = async () => {
      for (const { path, file } of queue) {
        if (come.get(path) !== file.size) await this.#put(path, file);
        this.#sent += file.size;
        this.#say(++this.#done);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, sender));
  }

  async #put(path, file) {
    if (file.size > PICTURE_BYTES) return this.notSent.push({ path, why: "more than 16 MB: send it in a zip" });
    const address = `${this.address}/pictures/${path.split("/").map(encodeURIComponent).join("/")}`;
    try {
      await this.#again(() => ask("PUT", address, file));
    } catch (problem) {
      if (![409, 413, 422].includes(problem.status)) throw problem;
      this.notSent.push({ path, why: problem.message });
    }
  }

  // The pictures that came before, with their sizes.
  async #come() {
    const found = new Map();
    for (let after = "0"; after;) {
      const page = await this.#again(() => get(`${this.address}/pictures?after=${after}`));
      for (const { path, bytes } of page.items) found.set(path, bytes);
      after = page.next;
    }
    return found;
  }

  #say(files, waits = 0) {
    this.#tell({ sent: this.#sent, total: this.total, files, of: this.#files.length, waits });
  }

  // Until it is done, refused or stopped; a line that is cut, or a server that is busy, is waited for.
  async #again(request) {
    for (let wait = FIRST_MS; ; wait = Math.min(1.7 * wait, LAST_MS)) {
      if (this.#stopped) throw new Problem(0, { detail: "The upload was stopped.", remedy: "What came stays for a day." });
      try {
        return await request();
      } catch (problem) {
        if (problem.status !== 0 && problem.status !== 503 && problem.status !== 429) throw problem;
        this.#say(this.#done, wait);
        await new Promise((done) => setTimeout(done, wait * (0.75 + Math.random() / 2)));
      }
    }
  }
}
