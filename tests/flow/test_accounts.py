"""A server with accounts: who gets in, what whom belongs to, and what is written down."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.roles import page, table
from tests.support import Cli, Server, certificate, command, environment

from vizsla.api import accounts
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"
ROLES = {"ada": "admin", "mia": "member", "olga": "member", "vic": "viewer"}
TINY = {"net": "lenet", "tune": "scratch", "epochs": 1, "batch_size": 32}


@pytest.fixture(scope="module")
def shared(ws: Workspace) -> Workspace:
    for name, role in ROLES.items():
        accounts.create(ws, name, PASSWORD, role=role)  # type: ignore[arg-type]
    return ws


@pytest.fixture(scope="module")
def server(shared: Workspace) -> Iterator[Server]:
    started = Server(shared.root, "--log-format", "json")
    yield started
    assert started.stop() == 0
    lines = [json.loads(line) for line in started.said.splitlines()]
    assert any(line.get("account") == "olga" and line["status"] == 202 for line in lines)
    for secret in (PASSWORD, "vizsla_", "argon2"):
        assert secret not in started.said.replace("vizsla_session", "")


@pytest.fixture
def cli(shared: Workspace) -> Cli:
    return Cli(shared.root)


def _as(server: Server, ws: Workspace, name: str) -> httpx.Client:
    token, _ = accounts.create_token(ws, name, "tests")
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


def _refused(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["kind"]) == (status, kind), answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_nobody_gets_in_without_proof(server: Server) -> None:
    root = server.url.removesuffix("/api/v1")
    for headers in ({}, {"Authorization": "Bearer vizsla_wrong"}, {"Authorization": "Basic eA=="}):
        for url in (f"{server.url}/runs", f"{server.url}/openapi.json", f"{root}/metrics", f"{root}/nowhere"):
            answer = httpx.get(url, headers=headers)
            _refused(answer, 401, "not-signed-in")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert httpx.get(f"{root}/healthz").status_code == httpx.get(f"{root}/readyz").status_code == 200


def test_a_session_from_its_beginning_to_its_end(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as browser:
        wrong = browser.post("/session", json={"name": "mia", "password": "wrong horse battery"})
        _refused(wrong, 401, "not-signed-in")
        signed_in = browser.post("/session", json={"name": "mia", "password": PASSWORD})
        assert signed_in.json() | {"expires_at": ""} == {
            "name": "mia", "role": "member", "proved_by": "session", "expires_at": "",
        }  # fmt: skip
        cookie = signed_in.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert browser.get("/runs").status_code == 200
        # What a page of another site would have the browser send with the cookie:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            _refused(browser.post("/runs/x/stop", headers=headers), 403, "forbidden")
        stolen = dict(browser.cookies)
        assert browser.delete("/session").status_code == 204
        _refused(browser.get("/runs"), 401, "not-signed-in")
        browser.cookies.update(stolen)
        _refused(browser.get("/runs"), 401, "not-signed-in")


def test_a_token_is_made_in_person_and_revoked(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as browser:
        browser.post("/session", json={"name": "vic", "password": PASSWORD})
        unproved = browser.post("/accounts/vic/tokens", json={"name": "notebook"})
        assert _refused(unproved, 422, "invalid-input")["where"] == "current_password"
        wanted = {"name": "notebook", "days": 1, "current_password": PASSWORD}
        made = browser.post("/accounts/vic/tokens", json=wanted)
        assert made.status_code == 201
        bearer = {"Authorization": f"Bearer {made.json()['secret']}"}
        assert httpx.get(f"{server.url}/session", headers=bearer).json()["proved_by"] == "token"
        again = httpx.post(f"{server.url}/accounts/vic/tokens", json={"name": "x"}, headers=bearer)
        assert "A token cannot do this" in _refused(again, 403, "forbidden")["detail"]
        (listed,) = [token for token in browser.get("/accounts/vic/tokens").json() if token["name"] == "notebook"]
        assert "secret" not in listed
        assert listed["used_at"]
        # A token is no session.
        cookie = dict.fromkeys(browser.cookies, made.json()["secret"])
        assert httpx.get(f"{server.url}/runs", cookies=cookie).status_code == 401
        assert browser.delete(f"/accounts/vic/tokens/{listed['id']}").status_code == 204
        assert httpx.get(f"{server.url}/session", headers=bearer).status_code == 401


def test_things_belong_to_who_made_them(server: Server, shared: Workspace) -> None:
    with contextlib.ExitStack() as stack:
        olga, mia, ada = (stack.enter_context(_as(server, shared, name)) for name in ("olga", "mia", "ada"))
        job = olga.post("/runs", json={"dataset": "shapes", "spec": TINY | {"epochs": 500}, "name": "hers"}).json()
        assert job["owner"] == "olga"
        assert shared.store.exact("hers", "run").owner == "olga"
        for path in (f"/jobs/{job['id']}/stop", "/runs/hers/stop"):
            refused = _refused(mia.post(path), 403, "forbidden")
            assert "belongs to olga; you are mia, a member" in refused["detail"]
        _refused(mia.delete("/runs/hers"), 403, "forbidden")
        while olga.get("/runs/hers").status_code != 200:  # it has not begun
            time.sleep(0.1)
        assert ada.post(f"/jobs/{job['id']}/stop").status_code == 202
        while shared.store.jobs.get(job["id"]).live:
            time.sleep(0.1)
        assert olga.patch("/runs/hers", json={"name": "hers too"}).status_code == 200
        # What the machine's user made is not hers.
        assert "belongs to" in _refused(olga.delete("/datasets/shapes"), 403, "forbidden")["detail"]


def test_passwords_are_changed_by_those_who_know_them(server: Server, shared: Workspace) -> None:
    accounts.create(shared, "pat", PASSWORD)
    with httpx.Client(base_url=server.url, timeout=60) as browser:
        browser.post("/session", json={"name": "pat", "password": PASSWORD})
        change = {"password": "another horse battery", "current_password": "wrong"}
        refused = _refused(browser.patch("/accounts/pat", json=change), 422, "invalid-input")
        assert refused["where"] == "current_password"
        _refused(browser.patch("/accounts/pat", json={"role": "admin"}), 403, "forbidden")
        changed = browser.patch("/accounts/pat", json=change | {"current_password": PASSWORD})
        assert changed.status_code == 200
        assert "password" not in changed.text
        assert browser.get("/session").status_code == 401, "its sessions have ended"


def test_nobody_comes_before_all_others_but_by_an_admin(server: Server, shared: Workspace) -> None:
    body = {"dataset": "shapes", "spec": TINY, "job": {"priority": 1}}
    with _as(server, shared, "mia") as mia:
        assert _refused(mia.post("/runs", json=body), 403, "forbidden")["where"] == "priority"


def test_names_of_things_hide_no_job(server: Server, shared: Workspace) -> None:
    with _as(server, shared, "mia") as mia, _as(server, shared, "ada") as ada:
        first = mia.post("/runs", json={"dataset": "shapes", "spec": TINY | {"epochs": 500}, "name": "first"}).json()
        second = mia.post("/runs", json={"dataset": "shapes", "spec": TINY, "name": first["id"]}).json()
        for job in (second, first):
            assert ada.post(f"/jobs/{job['id']}/stop").json()["id"] == job["id"]


def test_a_request_in_a_thousand_pieces(server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        for letter in b'{"name": "mia", "password": "' + b"x" * 2000 + b'"}':
            yield bytes([letter])

    answer = httpx.post(f"{server.url}/session", content=pieces(), headers={"content-type": "application/json"})
    assert _refused(answer, 422, "invalid-input")["where"] == "password"


def test_too_many_wrong_passwords(server: Server) -> None:
    for _ in range(5):
        wrong = {"name": "eve", "password": "wrong horse battery"}
        assert httpx.post(f"{server.url}/session", json=wrong).status_code == 401
    refused = httpx.post(f"{server.url}/session", json=wrong)
    _refused(refused, 429, "too-many")
    assert 0 < int(refused.headers["Retry-After"]) <= 900


def test_what_was_done_is_written_down(server: Server, shared: Workspace, cli: Cli) -> None:
    with _as(server, shared, "mia") as mia:
        _refused(mia.delete("/datasets/shapes"), 403, "forbidden")
    newest = cli("account", "audit", "--limit", 1, "--json").json[0]
    assert {name: newest[name] for name in ("account", "action", "thing", "outcome", "address")} == {
        "account": "mia",
        "action": "DELETE /datasets/{reference}",
        "thing": "/datasets/shapes",
        "outcome": "403",
        "address": "127.0.0.1",
    }
    assert "DELETE /datasets" in cli("account", "audit").out
    with _as(server, shared, "ada") as ada:
        first = ada.get("/audit", params={"limit": 1}).json()
        second = ada.get("/audit", params={"limit": 1, "after": first["next"]}).json()
        assert second["items"][0]["number"] < first["items"][0]["number"]


def test_accounts_by_the_command_line(shared: Workspace, cli: Cli) -> None:
    made = subprocess.run(
        command("account", "create", "tim", "--password-stdin", "--json"),
        env=environment(shared.root), input=f"{PASSWORD}\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(made.stdout).keys() == {"id", "name", "role", "created_at", "disabled"}
    assert "no terminal" in cli("account", "create", "tom", status=1).err
    assert "tim is an admin now" in cli("account", "role", "tim", "admin").out
    secret = cli("account", "token", "tim", "--for", "a script").out.strip()
    assert re.fullmatch(r"vizsla_[\w-]{43}", secret)
    token = cli("account", "tokens", "tim", "--json").json[0]
    assert token["name"] == "a script"
    cli("account", "revoke", "tim", token["id"])
    assert accounts.bearer(shared, secret) is None
    cli("account", "disable", "tim")
    assert "disabled" in cli("account", "list").out
    cli("account", "enable", "tim")
    cli("account", "delete", "tim")
    assert "There is no account 'tim'" in cli("account", "delete", "tim", status=1).err
    assert "last admin" in cli("account", "delete", "ada", status=1).err


def test_what_may_be_reached_needs_accounts_and_tls(tmp_path: Path) -> None:
    import vizsla

    own = Cli(tmp_path / "workspace")
    assert "vizsla account create" in own("serve", "--host", "0.0.0.0", "--port", 0, status=1).err
    with vizsla.open(own.workspace) as ws:
        accounts.create(ws, "ada", PASSWORD)
    assert "--tls-cert" in own("serve", "--host", "0.0.0.0", "--port", 0, status=1).err
    cert, key = certificate(tmp_path)
    assert "'*' is not the address of a proxy" in own("serve", "--proxy", "*", status=1).err
    assert "belong together" in own("serve", "--tls-cert", cert, status=1).err
    assert "cannot be used" in own("serve", "--tls-cert", cert, "--tls-key", cert, status=1).err
    trusted = ssl.create_default_context(cafile=str(cert))
    server = Server(own.workspace, "--host", "0.0.0.0", "--tls-cert", cert, "--tls-key", key, verify=trusted)
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    try:
        with httpx.Client(base_url=url, verify=trusted, timeout=60) as browser:
            signed_in = browser.post("/session", json={"name": "ada", "password": PASSWORD})
            assert "__host-vizsla_session=" in signed_in.headers["set-cookie"].lower()
            assert "secure" in signed_in.headers["set-cookie"].lower()
            assert browser.get("/session").json()["name"] == "ada"
    finally:
        assert server.stop() == 0


def test_without_accounts_nothing_comes_through_a_proxy(tmp_path: Path) -> None:
    import vizsla

    with vizsla.open(tmp_path / "workspace") as ws:
        server = Server(ws.root)
        try:
            assert server.client.get("/session").json()["proved_by"] == "nothing"
            _refused(server.client.post("/session", json={"name": "a", "password": "b"}), 409, "conflict")
            refused = server.client.get("/runs", headers={"X-Forwarded-For": "192.0.2.1"})
            assert "vizsla account create" in _refused(refused, 403, "forbidden")["remedy"]
            # No stranger can be the first; who is on the machine can, and that counts at once.
            made = server.client.post("/accounts", json={"name": "ada", "password": PASSWORD})
            assert "on the machine" in _refused(made, 403, "forbidden")["detail"]
            accounts.create(ws, "ada", PASSWORD)
            _refused(server.client.get("/runs"), 401, "not-signed-in")
        finally:
            assert server.stop() == 0


def test_each_role_may_do_what_the_page_says(tmp_path: Path) -> None:
    found = table(tmp_path / "workspace")
    assert page(found) == Path("docs/roles.md").read_text(), "run: python scripts/roles_page.py > docs/roles.md"
    for (method, path), (nobody, viewer, member, owner, admin, _) in found.items():
        route = f"{method} {path}"
        assert nobody == ("yes" if route == "POST /api/v1/session" else "sign in"), route
        if "/uploads/{" in path:  # an upload is its owner's alone
            assert (viewer, member, owner, admin) == ("no", "no", "yes", "no"), route
            continue
        if path == "/api/v1/folders":  # for those who may name one
            assert (viewer, member, owner, admin) == ("no", "yes", "yes", "yes"), route
            continue
        if method == "GET" and "/accounts" not in path and "/audit" not in path:
            assert (viewer, member, owner, admin) == ("yes",) * 4, route
        if method != "GET" and "/session" not in path:
            assert viewer == "no", route
        if "{" in path and method != "GET" and not path.endswith(("/clone", "/predict", "/explain", "/layers")):
            assert (member, admin if "tokens" not in path else "yes") == ("no", "yes"), route
