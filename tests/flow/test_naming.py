"""Names, notes and tags of every kind of thing: kept in folder and database, shown, refused where they cannot be."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
from tests.support import Cli, Server

import vizsla
from vizsla import files
from vizsla.api import datasets, evaluations, models, notes, predictions, runs, tags, workspace
from vizsla.errors import Conflict, Forbidden, InvalidInput, NotFound
from vizsla.store.rows import Kind
from vizsla.store.workspace import FINAL_FILE, Workspace

pytestmark = pytest.mark.slow

KINDS: tuple[Kind, ...] = ("dataset", "run", "model", "evaluation", "prediction")
GET = {
    "dataset": datasets.get,
    "run": runs.get,
    "model": models.get,
    "evaluation": evaluations.get,
    "prediction": predictions.get,
}


@pytest.fixture(scope="module", autouse=True)
def things(ws: Workspace) -> None:
    """One thing of each kind, called `shapes`."""
    spec = vizsla.TrainingSpec(net="lenet", tune="scratch", epochs=1)
    runs.start(ws, "shapes", spec, name="shapes")
    run = runs.get(ws, "shapes").run.id
    models.export(ws, run, name="shapes")
    evaluations.create(ws, run, split="val", name="shapes")
    predictions.create(ws, "shapes", datasets.get(ws, "shapes").spec.source / "disc", name="shapes")


@pytest.fixture
def cli(ws: Workspace) -> Cli:
    return Cli(ws.root)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_is_changed_in_folder_and_database(ws: Workspace, cli: Cli, kind: Kind) -> None:
    id = ws.store.exact("shapes", kind).id
    final = ws.folder(kind, id) / FINAL_FILE[kind]
    before = files.read_json(final)
    assert f"The {kind} shapes is now called other." in cli(kind, "rename", "shapes", "other").out
    assert files.read_json(final) == before | {"name": "other"}
    assert ws.store.exact("other", kind).id == id
    with pytest.raises(InvalidInput, match="cannot be a name"):
        workspace.rename(ws, kind, id, "a/b")
    with files.Lock(ws.folder(kind, id)), pytest.raises(Conflict, match="at work here"):
        workspace.rename(ws, kind, id, "x")
    assert ws.store.exact(id, kind).name == "other"
    workspace.rename(ws, kind, id, "shapes")
    GET[kind](ws, "shapes")


@pytest.mark.parametrize("kind", KINDS)
def test_notes_are_kept_and_shown(ws: Workspace, cli: Cli, kind: Kind) -> None:
    id = ws.store.exact("shapes", kind).id
    text = "From the second camera.\n\nAsk [b]Eva[/b] \u2013 \u00e4."
    assert notes.read(ws, kind, "shapes") == ""
    assert cli(kind, "notes", "shapes", f"  {text}  \n", "--json").json == {"notes": text + "\n"}
    assert text in cli(kind, "show", "shapes").out
    assert notes.read(ws, kind, id) == text + "\n"
    with files.Lock(ws.folder(kind, id)):  # also while work goes on
        notes.write(ws, kind, id, "at work")
    assert notes.read(ws, kind, id) == "at work\n"
    for bad in ("x" * 10_001, "a\x1b[2Jb", "\ud800"):
        with pytest.raises(InvalidInput):
            notes.write(ws, kind, id, bad)
    assert notes.read(ws, kind, id) == "at work\n"
    notes.write(ws, kind, id, " ")
    assert not (ws.folder(kind, id) / notes.NOTES).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_tags_are_kept_shown_and_filtered_by(ws: Workspace, cli: Cli, kind: Kind) -> None:
    assert "There are no tags." in cli(kind, "tags", "shapes").out
    assert cli(kind, "tags", "shapes", "v2", "[b]Eva[/b]", "V2", "--json").json == {"tags": ["[b]Eva[/b]", "v2"]}
    assert "tags: [b]Eva[/b], v2" in cli(kind, "show", "shapes").out
    assert "shapes" in cli(kind, "list", "--tag", "v2", "--tag", "[B]eva[/b]").out
    assert f"No {kind} has the tag v3." in cli(kind, "list", "--tag", "v3").out
    assert "There are no tags." in cli(kind, "tags", "shapes", "--clear").out
    assert f"No {kind} has all of the tags v2, x." in cli(kind, "list", "--tag", "v2", "--tag", "x").out


def test_a_clone_has_no_tags(ws: Workspace) -> None:
    tags.write(ws, "run", "shapes", ["mine"])
    assert tags.read(ws, "run", runs.clone(ws, "shapes", name="cloned").run.id) == []
    tags.write(ws, "run", "shapes", [])
    runs.delete(ws, "cloned")


def test_names_and_notes_survive_the_loss_of_the_database(ws: Workspace) -> None:
    with vizsla.open(ws.root.parent / "lost") as lost:
        for kind in KINDS:
            id = ws.store.exact("shapes", kind).id
            shutil.copytree(ws.folder(kind, id), lost.folder(kind, id))
    (lost.root / "vizsla.db").unlink()
    with vizsla.open(lost.root) as found:
        for kind in KINDS:
            workspace.rename(found, kind, "shapes", "new")
            notes.write(found, kind, "new", f"of the {kind}")
            tags.write(found, kind, "new", ["kept", kind])
    (lost.root / "vizsla.db").unlink()
    with vizsla.open(lost.root) as again:
        assert [notes.read(again, kind, "new") for kind in KINDS] == [f"of the {kind}\n" for kind in KINDS]
        assert [row.id for kind in KINDS for row in again.store.all(kind, tags=["kept", kind])] == [
            again.store.exact("new", kind).id for kind in KINDS
        ]
        with pytest.raises(NotFound):
            notes.read(again, "run", "shapes")


def test_only_owners_change_things(ws: Workspace) -> None:
    other = dataclasses.replace(ws, user="mia", role="member")
    for kind in KINDS:
        with pytest.raises(Forbidden):
            workspace.rename(other, kind, "shapes", "mine")
        with pytest.raises(Forbidden):
            notes.write(other, kind, "shapes", "mine")
        assert notes.read(other, kind, "shapes") == ""
        with pytest.raises(Forbidden):
            tags.write(other, kind, "shapes", ["mine"])
        assert tags.read(other, kind, "shapes") == []


def test_names_and_notes_by_rest(ws: Workspace) -> None:
    server = Server(ws.root)
    for kind in KINDS:
        at = f"/{kind}s/shapes"
        told = server.client.patch(at, json={"name": "by rest", "notes": "two\nlines"}).json()
        assert told == server.client.get(f"/{kind}s/by rest").json()
        assert (told["run"] if kind == "run" else told)["name"] == "by rest"
        assert server.client.get(f"/{kind}s/by rest/notes").json() == {"notes": "two\nlines\n"}
        wrong = server.client.patch(f"/{kind}s/by rest", json={"name": "x", "notes": "\x00"})
        assert (wrong.status_code, wrong.json()["where"]) == (422, "notes")
        assert server.client.get(f"/{kind}s/x").status_code == 404, "all or nothing"
        assert server.client.patch(f"/{kind}s/by rest", json={"name": "shapes", "notes": ""}).status_code == 200
        assert server.client.get(f"{at}/notes").json() == {"notes": ""}
    assert server.stop() == 0


def test_tags_by_rest(ws: Workspace) -> None:
    server = Server(ws.root)
    ask = server.client
    for kind in KINDS:
        at = f"/{kind}s/shapes"
        known = ask.get(f"{at}/tags")
        assert known.json() == {"tags": []}
        first = {"If-Match": known.headers["etag"]}
        assert ask.patch(at, json={"tags": ["v2", "Gr\u00fc\u00dfe"]}, headers=first).status_code == 200
        late = ask.patch(at, json={"tags": []}, headers=first)
        assert (late.status_code, late.json()["kind"]) == (412, "precondition-failed")
        assert ask.get(f"{at}/tags").json() == {"tags": ["Gr\u00fc\u00dfe", "v2"]}
        # Both are to be as they are known, where both are changed.
        etags = [ask.get(f"{at}/{part}").headers["etag"] for part in ("notes", "tags")]
        both = {"notes": "n", "tags": ["v3"]}
        assert ask.patch(at, json=both, headers={"If-Match": etags[0]}).status_code == 412
        assert ask.patch(at, json=both, headers={"If-Match": ", ".join(etags)}).status_code == 200
        wrong = ask.patch(at, json={"name": "x", "notes": "y", "tags": ["a,b"]})
        assert (wrong.status_code, wrong.json()["where"]) == (422, "tags")
        assert ask.get(f"{at}/notes").json() == {"notes": "n\n"}, "all or nothing"
        id = ws.store.exact("shapes", kind).id
        page = ask.get(f"/{kind}s", params={"tag": ["V3"]}).json()
        assert (len(page["items"]), page["next"], page["tags"]) == (1, None, {id: ["v3"]})
        assert ask.get(f"/{kind}s", params={"tag": ["v3", "v2"]}).json() == {"items": [], "next": None, "tags": {}}
        assert ask.get("/tags", params={"kind": kind}).json() == [{"tag": "v3", "things": 1}]
        assert ask.get(f"/{kind}s", params={"tag": "x" * 41}).status_code == 422
        assert ask.get(f"/{kind}s", params={"tag": ["", " ", "v3"]}).json()["tags"] == {id: ["v3"]}
        everything = ask.get(f"/{kind}s").json()
        assert ask.get(f"/{kind}s", params={"tag": ""}).json() == everything, "as with the filter of a page left empty"
        assert ask.get(f"/{kind}s", params={"tag": "\0"}).json()["items"] == []
        decomposed = "e\u0301" * 40
        assert ask.patch(at, json={"tags": [decomposed]}).status_code == 200
        assert ask.get(f"/{kind}s", params={"tag": decomposed}).json()["tags"] == {id: ["\u00e9" * 40]}
        assert ask.patch(at, json={"notes": "", "tags": []}).status_code == 200
    assert server.stop() == 0
