// Requests to /api/v1. What is refused is thrown as a Problem, with what the server says of it.

export class Problem extends Error {
  constructor(status, fields) {
    super(fields.detail ?? "The server does not answer.");
    this.status = status;
    this.where = fields.where ?? "";
    this.remedy = fields.remedy ?? "";
    this.errors = fields.errors ?? [];
  }

  get text() { return this.remedy ? `${this.message} ${this.remedy}` : this.message; }
}

export async function ask(method, address, body, headers = {}) {
  const raw = body instanceof Blob || body instanceof FormData || body instanceof ArrayBuffer;
  const sent = body === undefined ? {} : { body: raw ? body : JSON.stringify(body) };
  if (body !== undefined && !raw) headers = { "Content-Type": "application/json", ...headers };
  let response;
  try {
    response = await fetch(address, { method, headers, ...sent });
  } catch {
    throw new Problem(0, { detail: "The server does not answer.", remedy: "Try again in a moment." });
  }
  if (response.status === 401 && location.pathname !== "/sign-in") {
    location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  const type = response.headers.get("content-type") ?? "";
  const found = type.includes("json") && response.status !== 204 ? await response.json() : null;
  if (!response.ok) throw new Problem(response.status, found ?? { detail: `The server answers ${response.status}.` });
  return found;
}

export const get = (address) => ask("GET", address);

// A create that is sent again, because its answer was lost, makes nothing twice.
export function create(address, body) {
  return ask("POST", address, body, { "Idempotency-Key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` });
}
