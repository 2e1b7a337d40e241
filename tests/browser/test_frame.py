"""What all pages share: they fit, they are silent, they say where one is, they come back when the server does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from tests.browser.conftest import loaded
from tests.support import Server

import vizsla
from vizsla.api import accounts
from vizsla.ids import new_id
from vizsla.jobs.schedule import Need
from vizsla.store.rows import Kind

pytestmark = pytest.mark.slow

PAGES = ("/", "/jobs", "/devices", "/about", "/account", "/accounts")
PASSWORD = "correct horse battery"
FAILED = "Failed to load resource"
CUT = ("WebSocket connection", FAILED)


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit(server: Server, new_page: Callable[..., Any], width: int) -> None:
    page = new_page(server, width=width)
    for path in PAGES:
        page.goto(path)
        assert page.locator("h1").count() == 1, path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_where_nothing_is_made_yet_pages_say_what_to_do(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    server = Server(tmp_path)
    page = new_page(server)
    for path in ("/", "/datasets", "/runs", "/runs/new", "/evaluations", "/models", "/predictions", "/jobs"):
        with loaded(page):
            page.goto(path)
        assert page.locator(".nothing").count() == 1, path
        assert page.locator("form.filter").count() == 0, path
    page.close()
    assert server.stop() == 0


def test_what_is_not_there_is_said_by_a_page(server: Server, new_page: Callable[..., Any]) -> None:
    page = new_page(server, expects=(FAILED,))
    for path, status in (("/nowhere", 404), ("/jobs/1swk2a7qx4", 404), ("/jobs?after=x", 422), ("/jobs?state=x", 422)):
        assert page.goto(path).status == status, path
        assert page.locator("main a.button").inner_text() == "Home"
    assert httpx.get(server.url + "/nowhere", headers={"Accept": "text/html"}).json()["kind"] == "not-found"


def test_pages_run_nothing_but_their_own(server: Server) -> None:
    for path in PAGES:
        answer = httpx.get(server.url.removesuffix("/api/v1") + path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "style=" not in answer.text
        assert "onclick" not in answer.text
    assert httpx.get(server.url.removesuffix("/api/v1") + "/static/x/..%2fapp.py").status_code == 404


def test_all_kinds_of_work_are_listed(full: Path, server: Server) -> None:
    base = server.url.removesuffix("/api/v1")
    with vizsla.open(full) as ws:
        jobs = [
            ws.store.jobs.add(kind, new_id(), f"made {kind}", owner=ws.user, need=Need(("none",), 1, 1.0).as_dict())
            for kind in get_args(Kind)
        ]
    for path in ("/", "/jobs"):
        text = httpx.get(base + path).raise_for_status().text
        assert all(f"made {kind}" in text for kind in get_args(Kind)), path
    for job in jobs:
        assert httpx.get(f"{base}/jobs/{job.id}").status_code == 200, job.kind
        server.client.post(f"/jobs/{job.id}/stop")


def test_the_colours_that_were_chosen_stay(server: Server, new_page: Callable[..., Any]) -> None:
    page = new_page(server, scheme="light")
    page.goto("/")
    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.goto("/jobs")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark != "rgb(246, 245, 242)"


def test_a_page_comes_back_when_the_server_does(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    server = Server(tmp_path)
    page = new_page(server, expects=CUT)
    page.goto("/")
    live = page.locator("#live")
    live.and_(page.get_by_text("live", exact=True)).wait_for()
    port = int(server.url.split(":")[-1].split("/")[0])
    assert server.stop() == 0
    page.get_by_text("reconnecting").wait_for()
    server = Server(tmp_path, port=port)
    live.and_(page.get_by_text("live", exact=True)).wait_for(timeout=60_000)
    assert server.stop() == 0


def test_people_sign_in_and_come_back_to_where_they_were(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    with vizsla.open(tmp_path) as ws:
        accounts.create(ws, "ada", PASSWORD)
    server = Server(tmp_path)
    page = new_page(server, expects=(FAILED,))
    page.goto("/jobs?state=done")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/jobs?state=done")
    with loaded(page):
        page.get_by_role("link", name="ada").click()
    page.get_by_label("What it is for").fill("<img src=x onerror=alert(1)>")
    page.locator("#token").get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Make it").click()
    page.get_by_text("is the token").wait_for()
    page.goto("/accounts")
    page.locator("#person").get_by_label("Name").fill("mia")
    page.locator("#person").get_by_label("Password", exact=True).fill("another good one")
    page.locator("#person").get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("button", name="Change").click()
    page.locator("#edit-role").select_option("viewer")
    page.locator("#edit-mine").fill(PASSWORD)
    page.get_by_role("button", name="Change it").click()
    page.get_by_role("cell", name="viewer").wait_for()
    page.goto("/account")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.goto("/")
    page.get_by_label("Password").wait_for()
    assert server.stop() == 0
