"""Where a token goes, what is an address, and what is said of answers that no Vizsla server gives."""

from __future__ import annotations

import copy
import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import vizsla
from vizsla import errors
from vizsla.api import datasets, jobs, runs, tags, things
from vizsla.client.server import OF_WORKSPACES, Away, Person, base_of
from vizsla.errors import Conflict, InvalidInput, NotFound, NotSignedIn, Unavailable, VizslaError
from vizsla.store.workspace import Workspace
from vizsla.training.spec import TrainingSpec

ENTRY = {"id": "1aaaaaaaaa", "kind": "dataset", "name": "x", "created_at": "now", "owner": "me"}


class Fake(ThreadingHTTPServer):
    """Answers what it is told to, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, str, str]] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def say(self, status: int, body: object, kind: str = "application/json") -> None:
        """Answer so, once; the last of what was to be said again and again."""
        self.answers.append((status, kind, body if isinstance(body, str) else json.dumps(body)))


class _Handler(BaseHTTPRequestHandler):
    server: Fake

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        answers = self.server.answers
        status, kind, body = answers.pop(0) if len(answers) > 1 else answers[0]
        if status == 0:  # break off
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("content-type", kind)
        if status == 302:
            self.send_header("location", body)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_DELETE = do_PATCH = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://127.0.0.1:5000/api/v1/", "http://127.0.0.1:5000"),
        ("https://Example.org/vizsla/", "https://example.org/vizsla"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_addresses(url: str, base: str) -> None:
    assert base_of(url) == base


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:5000", "ftp://x", "http://", "http://x:port", "http://x?y=1", "http://x#y", "http://x/\n"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidInput, match="not the address of a server"):
        vizsla.connect(url)


def test_secrets_in_an_address_are_refused_and_not_shown() -> None:
    with pytest.raises(InvalidInput) as refused:
        vizsla.connect("https://me:secret@example.org")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://example.org", "http://192.168.0.1:5000", "http://127.0.0.1.example.org"])
def test_a_token_never_leaves_the_machine_without_encryption(url: str) -> None:
    with pytest.raises(InvalidInput, match="not sent without encryption"):
        vizsla.connect(url, "token")
    vizsla.connect(url).close()


def test_a_password_neither_leaves_without_encryption_nor_is_shown() -> None:
    with pytest.raises(InvalidInput, match="A password is not sent without encryption") as refused:
        vizsla.connect("http://example.org", account="ada", password="sesame")
    assert "sesame" not in str(refused.value)
    for given in ({"account": "ada"}, {"password": "sesame"}, {"token": "x", "account": "ada", "password": "sesame"}):
        with pytest.raises(InvalidInput, match="by a token, or by an account"):
            vizsla.connect("https://example.org", **given)
    assert "sesame" not in repr(Person("ada", "sesame"))


@pytest.mark.parametrize("token", ["", " x", "x\r\nHost: evil", "ü"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a token"):
        vizsla.connect("https://example.org", token)


def test_a_token_is_sent_and_not_shown(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    fake.say(200, ENTRY)
    with vizsla.connect(fake.url, "sesame") as server:
        assert things.find(server, "x", "dataset").id == "1aaaaaaaaa"
        assert "sesame" not in repr(server)
    assert fake.asked[0][2]["authorization"] == "Bearer sesame"


def test_every_kind_of_error_survives(fake: Fake) -> None:
    kinds = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, VizslaError)]
    assert len(kinds) > 8
    with vizsla.connect(fake.url) as server:
        for cls in kinds:
            told = {"kind": cls.kind, "detail": "What.", "where": "where", "remedy": "remedy", "status": 400}
            fake.answers = [(400, "application/problem+json", json.dumps(told))]
            with pytest.raises(cls) as raised:
                datasets.list_all(server)
            assert type(raised.value) is cls
            if cls is not NotSignedIn:
                assert raised.value.as_dict() == {
                    "kind": cls.kind, "what": "What.", "where": "where", "remedy": "remedy"
                }  # fmt: skip


def test_who_has_not_signed_in_is_told_how(fake: Fake) -> None:
    fake.say(401, {"kind": "not-signed-in", "detail": "Who?"}, "application/problem+json")
    with vizsla.connect(fake.url) as server, pytest.raises(NotSignedIn) as refused:
        datasets.list_all(server)
    assert f"vizsla login {fake.url}" in refused.value.remedy


def _ended(fake: Fake) -> None:
    fake.say(401, {"kind": "not-signed-in", "detail": "This proves nothing (any more)."}, "application/problem+json")


def test_who_has_signed_in_does_so_again_when_the_session_has_ended(fake: Fake) -> None:
    fake.say(200, {})
    with vizsla.connect(fake.url, account="ada", password="sesame") as server:
        fake.answers = []
        _ended(fake)
        fake.say(200, {})
        fake.say(200, ENTRY)
        assert things.find(server, "x", "dataset").id == "1aaaaaaaaa"
        assert [path.partition("?")[0].removeprefix("/api/v1/") for _, path, _ in fake.asked] == [
            "session", "find", "session", "find"
        ]  # fmt: skip
        fake.answers = []
        for _ in range(2):
            _ended(fake)
            fake.say(200, {})
        with pytest.raises(NotSignedIn) as refused:
            things.find(server, "x", "dataset")
        assert "account and password" in refused.value.remedy
        fake.answers = fake.answers[-1:]


def test_a_server_is_closed_twice_and_keeps_no_password(fake: Fake) -> None:
    fake.say(200, {})
    server = vizsla.connect(fake.url, account="ada", password="sesame")
    server.close()
    assert server.person is None
    server.close()
    assert [method for method, _, _ in fake.asked] == ["POST", "DELETE"]


@pytest.mark.parametrize(
    ("status", "kind", "body"), [(200, "text/html", "<html>"), (404, "text/html", "<html>"), (500, "text/plain", "")]
)
def test_what_answers_otherwise_is_no_server(fake: Fake, status: int, kind: str, body: str) -> None:
    fake.say(status, body, kind)
    with vizsla.connect(fake.url) as server, pytest.raises(Unavailable, match="no Vizsla server"):
        datasets.list_all(server)


def test_nobody_is_followed_elsewhere(fake: Fake) -> None:
    fake.say(302, "http://127.0.0.1:1/stolen")
    with vizsla.connect(fake.url, "sesame") as server, pytest.raises(Unavailable, match="elsewhere"):
        datasets.list_all(server)
    assert len(fake.asked) == 1


def test_answers_of_another_version_are_refused(fake: Fake) -> None:
    fake.say(200, {**ENTRY, "kind": "spaceship"})
    with vizsla.connect(fake.url) as server, pytest.raises(Unavailable, match=r"cannot be read: kind") as refused:
        things.find(server, "x", "dataset")
    assert "same version" in refused.value.remedy


def test_an_address_where_nobody_answers_is_told_at_once() -> None:
    with vizsla.connect("http://127.0.0.1:9") as server, pytest.raises(Away, match="does not answer"):
        datasets.list_all(server)


def test_what_only_reads_is_asked_again_and_the_rest_is_not(fake: Fake) -> None:
    fake.say(200, {"items": [], "next": None})
    with vizsla.connect(fake.url) as server:
        datasets.list_all(server)
        fake.answers = []
        fake.say(0, "")
        fake.say(503, "starting", "text/plain")
        fake.say(200, {"items": [], "next": None})
        assert datasets.list_all(server) == []
        assert len(fake.asked) == 4
        fake.answers = []
        fake.say(200, ENTRY)
        fake.say(0, "")
        with pytest.raises(Away, match="is not known"):
            datasets.delete(server, "x")
        assert [method for method, _, _ in fake.asked[4:]] == ["GET", "DELETE"]


def test_only_the_newest_are_asked_for(fake: Fake) -> None:
    for names, following in (("edc", "more"), ("ba", None)):
        fake.say(200, {"items": list(names), "next": following})
    with vizsla.connect(fake.url) as server:
        assert server.newest("datasets", limit=4) == ["b", "c", "d", "e"]
    assert [path for _, path, _ in fake.asked] == [
        "/api/v1/datasets?limit=4",
        "/api/v1/datasets?limit=4&after=more",
    ]


def test_what_makes_something_has_a_key_of_its_own(fake: Fake) -> None:
    problem = {"kind": "conflict", "detail": "There is one.", "status": 409}
    with vizsla.connect(fake.url) as server:
        for _ in range(2):
            fake.answers = []
            fake.say(200, ENTRY)
            fake.say(409, problem, "application/problem+json")
            with pytest.raises(Conflict):
                runs.submit(server, "x", TrainingSpec())
    keys = [headers["idempotency-key"] for method, _, headers in fake.asked if method == "POST"]
    assert len(set(keys)) == len(keys) == 2


def test_a_reference_is_no_path(fake: Fake) -> None:
    fake.say(404, {"kind": "not-found", "detail": "None."}, "application/problem+json")
    with vizsla.connect(fake.url) as server:
        for reference in ("../../accounts", "a/b?c#d", "ü é"):
            with pytest.raises(NotFound):
                jobs.get(server, reference)
            with pytest.raises(NotFound):
                datasets.delete(server, reference)
    assert {path.partition("?")[0] for _, path, _ in fake.asked} == {"/api/v1/find", "/api/v1/find/job"}


def test_who_writes_tags_is_told_of_their_own(fake: Fake) -> None:
    fake.say(200, ENTRY)
    fake.say(200, {"tags": ["of another, written since"]})
    with vizsla.connect(fake.url) as server:
        assert tags.write(server, "dataset", "x", ["v2", " Baseline", "V2"]) == ["Baseline", "v2"]
    assert [method for method, *_ in fake.asked] == ["GET", "PATCH"]


def test_a_client_needs_no_database(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, vizsla.client.runs, vizsla.client.models, vizsla.client.evaluations, vizsla.client.jobs\n"
    code += "print(sorted(set(sys.modules) & {'sqlalchemy', 'alembic', 'fastapi', 'torch'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_what_only_a_workspace_has_is_refused_in_words() -> None:
    owned = {field.name for field in dataclasses.fields(Workspace)}
    owned |= {name for name in vars(Workspace) if not name.startswith("_")}
    with vizsla.connect("http://127.0.0.1:9") as server:
        assert owned - set(dir(server)) == OF_WORKSPACES
        for name in OF_WORKSPACES:
            with pytest.raises(InvalidInput, match="cannot be asked of a server") as caught:
                getattr(server, name)
            assert "vizsla.open" in caught.value.remedy
            assert not hasattr(server, name)
        with pytest.raises(AttributeError, match="has no attribute 'stoer'") as wrong:
            server.stoer  # type: ignore[attr-defined]  # noqa: B018
        assert not isinstance(wrong.value, VizslaError)
        assert not isinstance(server, Workspace)
        assert copy.copy(server).url == server.url
