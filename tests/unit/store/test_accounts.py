"""The rows of accounts, through the verbs on them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import vizsla
from vizsla.api import accounts
from vizsla.api.workspace import to_change
from vizsla.errors import Conflict, DiskFull, Forbidden, InvalidInput, NotFound, NotSignedIn
from vizsla.store.tables import metadata
from vizsla.store.workspace import Workspace

PASSWORD = "correct horse battery"


@pytest.fixture(params=["sqlite", "postgresql"])
def ws(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    database = None if request.param == "sqlite" else request.getfixturevalue("database")
    with vizsla.open(tmp_path / "workspace", database=database) as opened:
        accounts.create(opened, "ada", PASSWORD)
        yield opened


def test_the_first_is_an_admin_and_the_others_are_members(ws: Workspace) -> None:
    assert accounts.create(ws, "mia", PASSWORD).role == "member"
    assert [(account.name, account.role) for account in accounts.list_all(ws)] == [("ada", "admin"), ("mia", "member")]
    with pytest.raises(Conflict, match="There is an account 'mia' already"):
        accounts.create(ws, "mia", PASSWORD)


def test_the_first_cannot_be_less(tmp_path: Path) -> None:
    with vizsla.open(tmp_path / "workspace") as ws:
        with pytest.raises(Conflict, match="has to be an admin"):
            accounts.create(ws, "vic", PASSWORD, role="viewer")
        assert accounts.list_all(ws) == []


@pytest.mark.parametrize("name", ["", "Ada", "a b", "../x", ".a", "a" * 65, "a\n", "ä", "a:b"])
def test_names_that_cannot_be(ws: Workspace, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be the name"):
        accounts.create(ws, name, PASSWORD)


@pytest.mark.parametrize("password", ["", "short", "x" * 257, "robert-the-third"])
def test_passwords_that_cannot_be(ws: Workspace, password: str) -> None:
    with pytest.raises(InvalidInput, match="password cannot be used"):
        accounts.create(ws, "robert-the-third", password)
    with pytest.raises(NotFound):
        accounts.get(ws, "robert-the-third")


def test_only_hashes_and_digests_are_kept(ws: Workspace) -> None:
    token, _ = accounts.create_token(ws, "ada", "tests")
    session, _ = accounts.sign_in(ws, "ada", PASSWORD)
    with ws.store.engine.connect() as connection:
        rows = [list(connection.execute(table.select())) for table in metadata.sorted_tables]
    ws.store.engine.dispose()
    kept = repr(rows).encode() + b"".join(path.read_bytes() for path in ws.root.glob("vizsla.db*"))
    assert b"$argon2id$" in kept
    for secret in (token, session, PASSWORD):
        assert secret.encode() not in kept


def test_who_signs_in_is_known_by_the_session(ws: Workspace) -> None:
    secret, bearer = accounts.sign_in(ws, "ada", PASSWORD)
    found = accounts.bearer(ws, secret)
    assert found is not None
    assert (found.account.name, found.credential.kind, found.credential.id) == ("ada", "session", bearer.credential.id)
    assert accounts.bearer(ws, secret + "x") is None
    assert accounts.bearer(ws, "") is None
    for name, password in (("ada", "wrong horse battery"), ("nobody", PASSWORD), ("ada", ""), ("ada", "\ud800")):
        with pytest.raises(NotSignedIn, match="do not belong to an account"):
            accounts.sign_in(ws, name, password)


def test_another_password_ends_sessions_and_leaves_tokens(ws: Workspace) -> None:
    session, _ = accounts.sign_in(ws, "ada", PASSWORD)
    token, _ = accounts.create_token(ws, "ada", "tests")
    accounts.change(ws, "ada", password="another horse battery")
    assert accounts.bearer(ws, session) is None
    assert accounts.bearer(ws, token) is not None
    with pytest.raises(NotSignedIn):
        accounts.sign_in(ws, "ada", PASSWORD)
    accounts.sign_in(ws, "ada", "another horse battery")


def test_the_disabled_prove_nothing(ws: Workspace) -> None:
    accounts.create(ws, "mia", PASSWORD)
    token, _ = accounts.create_token(ws, "mia", "tests")
    accounts.change(ws, "mia", disabled=True)
    assert accounts.bearer(ws, token) is None
    with pytest.raises(NotSignedIn):
        accounts.sign_in(ws, "mia", PASSWORD)
    accounts.change(ws, "mia", disabled=False)
    assert accounts.bearer(ws, token) is not None


def test_tokens_end_by_time_by_revocation_and_with_their_account(ws: Workspace) -> None:
    accounts.create(ws, "mia", PASSWORD)
    old, made = accounts.create_token(ws, "mia", "old", days=1)
    new, kept = accounts.create_token(ws, "mia", "new")
    assert [token.name for token in accounts.tokens(ws, "mia")] == ["old", "new"]
    with pytest.raises(NotFound):  # not one of another
        accounts.revoke(ws, "ada", made.id)
    accounts.revoke(ws, "mia", made.id)
    assert accounts.bearer(ws, old) is None
    ws.store.accounts.give(ws.store.accounts.known("mia"), "token", "gone", "0" * 64, "2020-01-01T00:00:00.000Z")
    assert ws.store.accounts.bearer("0" * 64) is None
    assert [token.id for token in accounts.tokens(ws, "mia")] == [kept.id]
    accounts.delete(ws, "mia")
    assert accounts.bearer(ws, new) is None
    for days in (0, 367):
        with pytest.raises(InvalidInput, match="days"):
            accounts.create_token(ws, "ada", "x", days=days)


def test_an_admin_remains(ws: Workspace) -> None:
    accounts.create(ws, "mia", PASSWORD)
    for change in ({"role": "member"}, {"disabled": True}):
        with pytest.raises(Conflict, match="last admin"):
            accounts.change(ws, "ada", **change)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="last admin"):
        accounts.delete(ws, "ada")
    assert accounts.get(ws, "ada").role == "admin"
    accounts.change(ws, "mia", role="admin")
    accounts.delete(ws, "ada")


def test_two_admins_cannot_remove_each_other_at_once(ws: Workspace) -> None:
    accounts.create(ws, "bob", PASSWORD, role="admin")
    start = threading.Barrier(2)

    def remove(name: str) -> None:
        start.wait(10)
        with contextlib.suppress(Conflict):
            accounts.delete(ws, name)

    threads = [threading.Thread(target=remove, args=(name,)) for name in ("ada", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accounts.list_all(ws)) == 1


def test_what_was_done_is_kept_in_order_and_for_a_time(ws: Workspace) -> None:
    for number in range(5):
        accounts.note_of(ws, "ada", "192.0.2.1", "POST /runs", f"/runs/{number}" + "x" * 300, "202")
    newest = accounts.actions(ws, limit=2)
    assert [action.thing[:7] for action in newest] == ["/runs/4", "/runs/3"]
    older = accounts.actions(ws, limit=9, before=newest[-1].number)
    assert [action.thing[:7] for action in older] == ["/runs/2", "/runs/1", "/runs/0"]
    assert len(accounts.actions(ws)) == 5
    ws.store.accounts.note("ada", "here", "the last", "", "done", until="2100-01-01")
    assert accounts.actions(ws) == []


def test_of_very_many_actions_the_last_are_kept(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizsla.store.accounts.MAX_ACTIONS", 3)
    for number in range(6):
        accounts.note(ws, "x", str(number))
    assert [action.thing for action in accounts.actions(ws)] == ["5", "4", "3"]


def test_another_of_the_same_name_inherits_nothing(ws: Workspace) -> None:
    accounts.create(ws, "mia", PASSWORD)
    mias = ws.store.add("dataset", "hers", owner="mia")
    assert accounts.delete(ws, "mia").name == "mia"
    assert ws.store.exact(mias.id, "dataset").owner == ""
    accounts.create(ws, "mia", PASSWORD)
    with pytest.raises(Forbidden, match="belongs to nobody"):
        to_change(replace(ws, user="mia", role="member"), "dataset", "hers")


def test_a_member_is_not_named_as_who_owns_things_already(ws: Workspace) -> None:
    ws.store.add("dataset", "theirs", owner="ubuntu")
    with pytest.raises(Conflict, match="belong to a 'ubuntu' already"):
        accounts.create(ws, "ubuntu", PASSWORD)
    assert accounts.create(ws, "ubuntu", PASSWORD, role="admin").role == "admin"


def test_who_is_no_admin_changes_no_account(ws: Workspace) -> None:
    mia = replace(ws, user="mia", role="member")
    accounts.create(ws, "mia", PASSWORD)
    for change in (
        lambda: accounts.create(mia, "eve", PASSWORD),
        lambda: accounts.delete(mia, "ada"),
        lambda: accounts.change(mia, "ada", password="another horse battery"),
        lambda: accounts.change(mia, "mia", role="admin"),
    ):
        with pytest.raises(Forbidden, match="Only admins"):
            change()
    accounts.change(mia, "mia", password="another horse battery")


def test_a_sign_in_that_the_password_was_changed_under_counts_for_nothing(ws: Workspace) -> None:
    before = accounts.check_password(ws, "ada", PASSWORD)
    accounts.change(ws, "ada", password="another horse battery")
    with pytest.raises(NotSignedIn, match="changed meanwhile"):
        ws.store.accounts.give(before, "session", "", "1" * 64, "2100-01-01T00:00:00.000Z")


def test_what_one_account_may_have_is_bounded(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizsla.store.accounts.MAX_CREDENTIALS", 2)
    for name in ("a", "b"):
        accounts.create_token(ws, "ada", name)
    with pytest.raises(Conflict, match="has 2 tokens"):
        accounts.create_token(ws, "ada", "c")
    accounts.sign_in(ws, "ada", PASSWORD)


def test_the_use_of_a_token_need_not_be_noted(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, _ = accounts.create_token(ws, "ada", "tests")

    def full(id: str) -> None:
        raise DiskFull("The disk is full.")

    monkeypatch.setattr(ws.store.accounts, "used", full)
    assert accounts.bearer(ws, secret) is not None


def test_only_the_group_may_read_the_database(ws: Workspace) -> None:
    for path in ws.root.glob("vizsla.db*"):
        assert path.stat().st_mode & 0o007 == 0, path
