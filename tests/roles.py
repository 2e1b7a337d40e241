"""What each role may ask of a server: found out by asking, for the page docs/roles.md and for the tests."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

import vizsla
from vizsla import files
from vizsla.api import accounts, uploads
from vizsla.errors import Conflict
from vizsla.jobs.schedule import BESIDE
from vizsla.store.rows import Kind
from vizsla.store.workspace import FINAL_FILE, Workspace
from vizsla.web.app import create_app

PASSWORD = "correct horse battery"
# The things are olga's. Whoever asks about accounts asks about hers.
ROLES = {"vic": "viewer", "mia": "member", "olga": "member", "ada": "admin"}
ASKERS = ("nobody", "viewer", "member", "owner", "admin", "admin's token")
SIGNED_IN = {"viewer": "vic", "member": "mia", "owner": "olga", "admin": "ada"}
WORDS = {401: "sign in", 403: "no"}


def table(root: Path) -> dict[tuple[str, str], list[str]]:
    """For each method and route what each of `ASKERS` gets: "sign in", "no" or "yes"."""
    with vizsla.open(root) as ws:
        for name, role in sorted(ROLES.items(), key=lambda pair: pair[1] != "admin"):
            accounts.create(ws, name, PASSWORD, role=role)  # type: ignore[arg-type]
        proofs: dict[str, str] = {}
        with files.Lock(ws.root / "queue") as lock:
            app = create_app(ws, lock)
            client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
            routes = [
                (method.upper(), path) for path, operations in app.openapi()["paths"].items() for method in operations
            ]
            # Last, what ends an account.
            routes.sort(key=lambda route: (route == ("DELETE", "/api/v1/accounts/{name}"), route[1], route[0]))
            return {route: [_ask(client, ws, who, proofs, route) for who in ASKERS] for route in routes}


def _ask(client: TestClient, ws: Workspace, who: str, proofs: dict[str, str], route: tuple[str, str]) -> str:
    method, path = route
    ids = _seed(ws)
    noun = path.removeprefix("/api/v1/").split("/")[0]
    filled = path.replace("{reference}", ids.get(noun, "olga")).replace("{name}", "olga")
    filled = filled.replace("{id}", "none" if "tokens" in path else ids.get(noun, "none"))
    filled = re.sub(r"\{[a-z_]+\}", "0", filled)
    if who in SIGNED_IN and who not in proofs:
        proofs[who], _ = accounts.sign_in(ws, SIGNED_IN[who], PASSWORD)
    elif who not in proofs and who != "nobody":
        proofs[who], _ = accounts.create_token(ws, "ada", "table")
    headers = {"Authorization": f"Bearer {proofs[who]}"} if who == "admin's token" else {}
    client.cookies.clear()
    if who in SIGNED_IN:
        client.cookies.set("vizsla_session_80", proofs[who])
    body: dict[str, Any] = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
    if path.endswith("/extend"):
        body = {"json": {"epochs": 1}}
    elif path.endswith("/services/{reference}/models"):
        body = {"json": {"models": ["none"]}}
    elif path.endswith("/diagnose"):
        body = {"json": {"measure": "nothing"}}  # which is refused, and not measured
    elif method == "PATCH" and noun in FOLDERS:
        body = {"json": {"name": "renamed"}}
    elif method == "PATCH" and noun == "uploads":
        headers["Upload-Offset"] = "0"
    answer = client.request(method, filled, headers=headers, **body)
    assert answer.status_code < 500, (who, route, answer.text)
    if (method, path) == ("DELETE", "/api/v1/session"):
        proofs.pop(who, None)
    if noun == "uploads" and "{" in path and answer.status_code == 404:
        return "no"  # of another's upload nobody is told that it is there
    return WORDS.get(answer.status_code, "yes")


FOLDERS = {f"{kind}s": kind for kind in FINAL_FILE}


def _seed(ws: Workspace) -> dict[str, str]:
    """Things of olga's, in the making, by noun; what was deleted is there again."""
    ids: dict[str, str] = {}
    for noun, kind in FOLDERS.items():
        ids[noun] = _thing(ws, kind)
    live = ws.store.jobs.live_of(ids["runs"])
    made = live or ws.store.jobs.add("run", ids["runs"], "seed", owner="olga", need=BESIDE.as_dict())
    olga = replace(ws, user="olga", role="member")
    there = uploads.list_all(olga) or [uploads.create(olga, "seed", kind="folder")]
    return ids | {"jobs": made.id, "uploads": there[0].upload.id}


def _thing(ws: Workspace, kind: Kind) -> str:
    with contextlib.suppress(Conflict):
        ws.store.add(kind, "seed", owner="olga")
    entry = ws.store.exact("seed", kind)
    ws.folder(kind, entry.id).mkdir(exist_ok=True)
    return entry.id


def page(found: dict[tuple[str, str], list[str]]) -> str:
    """The table as Markdown."""
    lines = [
        "# Who may ask what",
        "",
        "What a server with accounts answers, route by route, found out by asking: `yes`, `no` (403), or `sign in`",
        "(401). The things and the accounts that are asked about belong to a member, the owner; another member asks",
        "too, and a program with an admin's token. `yes` may still be refused for another reason, such as a field",
        "that is missing. Of an upload, `no` may be a 404: it is there for its owner only. A server without accounts",
        "answers to its own machine only, and there to all as to an admin.",
        "",
        "| route | " + " | ".join(ASKERS) + " |",
        "|---|" + "---|" * len(ASKERS),
    ]
    rows = sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))
    lines += [f"| `{method} {path.removeprefix('/api/v1')}` | {' | '.join(cells)} |" for (method, path), cells in rows]
    return "\n".join(lines) + "\n"
