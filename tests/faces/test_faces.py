"""Every verb has four faces, Python and the command line, each on a folder and on a server: they give the same."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.faces.conftest import LONG, OTHER_PASSWORD, PASSWORD, TINY, Steered
from tests.faces.faces import MEASURED, Faces, Where, alike, plain, refusal, without

import vizsla
from vizsla.api import (
    accounts,
    datasets,
    evaluations,
    history,
    jobs,
    logs,
    machine,
    models,
    notes,
    predictions,
    runs,
    services,
    tags,
    things,
    uploads,
)
from vizsla.cli.main import app
from vizsla.errors import Forbidden, InvalidInput, NotSignedIn
from vizsla.events import ignore_event
from vizsla.jobs.spec import JobSpec
from vizsla.serving.hosting import HostingSpec

pytestmark = pytest.mark.slow

NOUNS = (
    "accounts", "datasets", "runs", "evaluations", "models", "predictions", "services", "jobs", "history", "logs",
    "machine", "notes", "sweeps", "tags", "things", "trials", "uploads",
)  # fmt: skip
SHA256 = hashlib.sha256(b"data").hexdigest()
NO_UPLOAD = Path("upload:none")
SETTINGS = ("--net", "lenet", "--tune", "scratch", "--epochs", 1, "--batch-size", 16)

Part = Callable[[Any], Any]


def _all(told: Any) -> Any:
    return told


def _but(name: str) -> Part:
    return lambda told: {other: told[other] for other in told if other != name}


class Look(NamedTuple):
    """A verb that changes nothing, on the same thing."""

    verb: str
    call: Callable[[Where], Any]
    command: tuple[object, ...] | None
    part: Part = _all
    """what of the command's JSON is the verb's answer"""


LOOKS = [
    Look("datasets.get", lambda at: datasets.get(at, "shapes"), ("dataset", "show", "shapes")),
    Look("datasets.get", lambda at: datasets.get(at, "sha"), ("dataset", "show", "sha")),
    Look("datasets.list_all", datasets.list_all, ("dataset", "list")),
    Look("datasets.scan", lambda at: datasets.scan(at, _spec(at)),
         ("dataset", "scan", "PICTURES", "--val-percent", 20, "--test-percent", 20)),
    Look("runs.get", lambda at: runs.get(at, "trained"), ("run", "show", "trained"), _but("epochs")),
    Look("runs.list_all", runs.list_all, ("run", "list")),
    Look("runs.list_all", lambda at: runs.list_all(at, limit=1), ("run", "list", "--limit", 1)),
    Look("runs.epochs", lambda at: runs.epochs(at, "tra"), ("run", "show", "trained"), lambda told: told["epochs"]),
    Look("runs.events", lambda at: runs.events(at, "trained").events, ("run", "events", "trained")),
    Look("runs.events", lambda at: runs.events(at, "trained", runs.events(at, "trained").next), None),
    Look("runs.follow", lambda at: runs.follow(at, "trained", ignore_event), ("run", "follow", "trained"),
         _but("epochs")),
    Look("evaluations.get", lambda at: evaluations.get(at, "measured"), ("evaluation", "show", "measured")),
    Look("evaluations.list_all", evaluations.list_all, ("evaluation", "list")),
    Look("models.get", lambda at: models.get(at, "exported"), ("model", "show", "exported")),
    Look("models.list_all", models.list_all, ("model", "list")),
    Look("predictions.get", lambda at: predictions.get(at, "seen"), ("prediction", "show", "seen")),
    Look("predictions.rows", lambda at: predictions.rows(at, "seen", limit=3), None),
    Look("predictions.rows", lambda at: predictions.rows(at, "seen", label="ring", first=1), None),
    Look("predictions.list_all", predictions.list_all, ("prediction", "list")),
    Look("history.get", lambda at: json.loads(history.get(at, "trained", points=9).json),
         ("run", "history", "trained", "--points", 9)),
    Look("notes.read", lambda at: notes.read(at, "model", "exported"), ("model", "notes", "exported"),
         lambda told: told["notes"]),
    Look("notes.read", lambda at: notes.read(at, "dataset", "shapes"), ("dataset", "notes", "shapes"),
         lambda told: told["notes"]),
    Look("notes.read", lambda at: notes.read(at, "run", "trained"), ("run", "notes", "trained"),
         lambda told: told["notes"]),
    Look("notes.read", lambda at: notes.read(at, "prediction", "seen"), ("prediction", "notes", "seen"),
         lambda told: told["notes"]),
    Look("tags.read", lambda at: tags.read(at, "run", "trained"), ("run", "tags", "trained"),
         lambda told: told["tags"]),
    Look("tags.read", lambda at: tags.read(at, "dataset", "shapes"), ("dataset", "tags", "shapes"),
         lambda told: told["tags"]),
    Look("tags.read", lambda at: tags.read(at, "model", "exported"), ("model", "tags", "exported"),
         lambda told: told["tags"]),
    Look("tags.used", lambda at: tags.used(at, "run"), None),
    Look("tags.used", lambda at: tags.used(at, "run", limit=1), None),
    Look("runs.list_all", lambda at: runs.list_all(at, tags=["Baseline", "v2"]),
         ("run", "list", "--tag", "baseline", "--tag", "V2")),
    Look("runs.list_all", lambda at: runs.list_all(at, tags=["v2", "v3"]), ("run", "list", "--tag=v2", "--tag=v3")),
    Look("datasets.list_all", lambda at: datasets.list_all(at, tags=["v2"]), ("dataset", "list", "--tag", "v2")),
    Look("evaluations.list_all", lambda at: evaluations.list_all(at, limit=1, tags=["v2"]),
         ("evaluation", "list", "--tag", "v2", "--limit", 1)),
    Look("models.list_all", lambda at: models.list_all(at, tags=["v2"]), ("model", "list", "--tag", "v2")),
    Look("predictions.list_all", lambda at: predictions.list_all(at, tags=["v2"]),
         ("prediction", "list", "--tag", "v2")),
    Look("logs.lines", lambda at: list(logs.lines(at, "trained", follow=True)), None),
    Look("jobs.usage", lambda at: jobs.usage(at, "trained"), None),
    Look("jobs.get", lambda at: jobs.get(at, "trained"), ("jobs", "show", "trained"),
         lambda told: {"job": _but("history")(_but("usage")(told)), "history": told["history"]}),
    Look("jobs.list_all", jobs.list_all, ("jobs", "list")),
    Look("jobs.list_all", lambda at: jobs.list_all(at, limit=3), ("jobs", "list", "--limit", 3)),
    Look("jobs.live", jobs.live, None),
    Look("jobs.live_of", lambda at: jobs.live_of(at, things.find(at, "trained", "run").id), None),
    Look("jobs.keeper_of", jobs.keeper_of, None),
    Look("jobs.leave", jobs.leave, None),
    Look("machine.held", machine.held, ("devices",), lambda told: [
        {"device": without(held, {"runs", "other_processes"}), "runs": held["runs"]} for held in told]),
    Look("uploads.get", lambda at: uploads.get(at, _upload(at, "begun")), None),
    Look("uploads.list_all", uploads.list_all, None),
    Look("uploads.pictures", lambda at: uploads.pictures(at, _upload(at, "begun")), None),
    Look("things.find", lambda at: things.find(at, "expo", "model"), None),
]  # fmt: skip


class Change(NamedTuple):
    """A verb that makes or changes something: each face does so to a thing of its own, named for it."""

    verb: str
    call: Callable[[Where, str], Any]
    command: Callable[[str], tuple[object, ...]] | None
    printed: Part = _all
    """what the command prints of the verb's answer"""
    undone_by: Callable[[str], str] | None = None
    """the job that is stopped afterwards"""
    compared: Part = _all
    """what of both is to be the same"""
    given: str = ""
    """what the command reads"""


def _deleted(entry: Any) -> Any:
    return {"deleted": entry["id"]}


def _asked(job: Any) -> Any:
    """What of a job does not change while it is looked at."""
    return {name: job[name] for name in ("kind", "name", "owner", "priority", "need", "retries")}


def _steady(hosted: Any) -> Any:
    """What of services does not change while they are looked at, and is the same of all of them."""
    return {name: hosted[name] for name in ("title", "device", "workers", "host", "num_keys", "state", "error")}


def _at_rest(at: Where, name: str) -> str:
    """The id of a service that was asked to stop, when it has."""
    id = services.get(at, name).id
    deadline = time.monotonic() + 60
    while jobs.live_of(at, id) is not None:
        assert time.monotonic() < deadline
        jobs.list_all(at)
        time.sleep(0.05)
    return id


def _spec(at: Where) -> vizsla.DatasetSpec:
    return datasets.get(at, "shapes").spec


def _create(name: str) -> tuple[object, ...]:
    return "dataset", "create", name, "PICTURES", "--size", 32, "--val-percent", 20, "--test-percent", 20


WHILE_FREE = [
    Change("datasets.create", lambda at, face: datasets.create(at, face, _spec(at)), _create),
    Change("runs.start", lambda at, face: runs.start(at, "shapes", TINY, name=face),
           lambda face: ("train", "shapes", *SETTINGS, "--name", face)),
    Change("runs.finish", lambda at, face: runs.finish(at, _job_of(at, "run", face)), None),
    Change("uploads.create", lambda at, face: uploads.create(at, face, size=4, sha256=SHA256), None,
           compared=_but("expires_at")),
    Change("uploads.append", lambda at, face: uploads.append(at, _upload(at, face), 0, b"data"), None,
           compared=_but("expires_at")),
    Change("uploads.delete", lambda at, face: uploads.delete(at, _upload(at, face)), None),
    Change("uploads.put_picture",
           lambda at, face: uploads.put_picture(at, _upload(at, "begun"), f"disc/{face} ä.png", face.encode()), None,
           compared=lambda told: told["upload"]),
]  # fmt: skip

WHILE_BUSY = [
    Change("datasets.submit", lambda at, face: datasets.submit(at, f"later {face}", _spec(at)),
           lambda face: (*_create(f"later {face}"), "--detach"), compared=_asked),
    Change("datasets.finish", lambda at, face: datasets.finish(at, jobs.get(at, f"later {face}").job), None),
    Change("evaluations.submit", lambda at, face: evaluations.submit(at, face, split="val", name=face),
           lambda face: ("evaluate", face, "--split", "val", "--name", face, "--detach"), compared=_asked),
    Change("evaluations.finish", lambda at, face: evaluations.finish(at, _job_of(at, "evaluation", face)), None),
    Change("models.submit", lambda at, face: models.submit(at, face, name=face),
           lambda face: ("model", "export", face, "--name", face, "--detach"), compared=_asked),
    Change("models.finish", lambda at, face: models.finish(at, _job_of(at, "model", face)), None),
    Change("evaluations.submit", lambda at, face: evaluations.submit(at, "waiting", split="val", name=f"later {face}"),
           lambda face: ("evaluate", "waiting", "--split", "val", "--name", f"later {face}", "--detach"),
           compared=_asked),
    Change("models.submit", lambda at, face: models.submit(at, "long", checkpoint="last", name=f"later {face}"),
           lambda face: ("model", "export", "long", "--checkpoint", "last", "--name", f"later {face}", "--detach"),
           compared=_asked),
    Change("runs.submit", lambda at, face: runs.submit(at, "shapes", LONG, name=f"queued {face}"),
           lambda face: ("train", "shapes", *SETTINGS[:4], "--epochs", 5000, "--batch-size", 16,
                         "--name", f"queued {face}", "--detach"), compared=_asked),
    Change("runs.stop", lambda at, face: runs.stop(at, f"queued {face}"),
           lambda face: ("run", "stop", f"queued {face}"), lambda entry: {"stopping": entry["id"]}),
    Change("runs.submit_clone", lambda at, face: runs.submit_clone(at, face, name=f"clone of {face}"),
           lambda face: ("run", "clone", face, "--name", f"clone of {face}", "--detach"), compared=_asked),
    Change("jobs.stop", lambda at, face: jobs.stop(at, f"clone of {face}"),
           lambda face: ("jobs", "stop", f"clone of {face}"), compared=_asked),
    Change("runs.submit_resume", lambda at, face: runs.submit_resume(at, "halted"),
           lambda face: ("run", "resume", "halted", "--detach"), undone_by=lambda face: "halted", compared=_asked),
    Change("runs.submit_extend", lambda at, face: runs.submit_extend(at, face, 2),
           lambda face: ("run", "extend", face, "--epochs", 2, "--detach"), undone_by=str, compared=_asked),
    Change("runs.rename", lambda at, face: runs.rename(at, face, f"renamed {face}"),
           lambda face: ("run", "rename", face, f"renamed {face}")),
    Change("predictions.submit", lambda at, face: predictions.submit(at, face, _spec(at).source, name=face),
           lambda face: ("prediction", "create", face, "PICTURES", "--name", face, "--detach"), compared=_asked),
    Change("predictions.finish", lambda at, face: predictions.finish(at, _job_of(at, "prediction", face)), None,
           compared=_but("finished_at")),
    Change("notes.write", lambda at, face: notes.write(at, "evaluation", face, "Of the second camera."),
           lambda face: ("evaluation", "notes", face, "Of the second camera."), lambda text: {"notes": text}),
    Change("tags.write", lambda at, face: tags.write(at, "run", f"renamed {face}", ["v2", " Für Eva", "V2"]),
           lambda face: ("run", "tags", f"renamed {face}", "v2", " Für Eva", "V2"), lambda found: {"tags": found}),
    Change("tags.write", lambda at, face: tags.write(at, "model", face, []),
           lambda face: ("model", "tags", face, "--clear"), lambda found: {"tags": found}),
    Change("tags.write", lambda at, face: tags.write(at, "evaluation", face, ["v2"]),
           lambda face: ("evaluation", "tags", face, "v2"), lambda found: {"tags": found}),
    Change("tags.write", lambda at, face: tags.write(at, "prediction", face, ["v2"]),
           lambda face: ("prediction", "tags", face, "v2"), lambda found: {"tags": found}),
    Change("tags.write", lambda at, face: tags.write(at, "dataset", face, ["v2"]),
           lambda face: ("dataset", "tags", face, "v2"), lambda found: {"tags": found}),
    Change("things.rename", lambda at, face: things.rename(at, "model", face, f"named {face}"),
           lambda face: ("model", "rename", face, f"named {face}")),
    Change("things.rename", lambda at, face: things.rename(at, "evaluation", face, f"named {face}"),
           lambda face: ("evaluation", "rename", face, f"named {face}")),
    Change("things.rename", lambda at, face: things.rename(at, "prediction", face, f"named {face}"),
           lambda face: ("prediction", "rename", face, f"named {face}")),
    Change("things.rename", lambda at, face: things.rename(at, "dataset", face, f"named {face}"),
           lambda face: ("dataset", "rename", face, f"named {face}")),
    Change("services.start", lambda at, face: services.start(at, HostingSpec(models=(f"named {face}",)), name=face),
           lambda face: ("service", "start", f"named {face}", "--name", face, "--port", 0), compared=_steady),
    Change("services.get", services.get, lambda face: ("service", "show", face),
           compared=_steady),
    Change("services.list_all", lambda at, face: services.list_all(at), lambda face: ("service", "list"),
           compared=lambda told: [_steady(one) for one in told]),
    Change("services.captured", services.captured, lambda face: ("service", "captured", face),
           compared=_but("folder")),
    Change("services.update", lambda at, face: services.update(at, face, [f"named {face}"]),
           lambda face: ("service", "update", face, f"named {face}"), compared=_steady),
    Change("jobs.stop", lambda at, face: jobs.stop(at, services.get(at, face).id),
           lambda face: ("service", "stop", face), compared=_asked),
    Change("services.resume", lambda at, face: services.resume(at, _at_rest(at, face)),
           lambda face: ("service", "resume", face), compared=_steady, undone_by=str),
    Change("services.submit_resume", lambda at, face: services.submit_resume(at, _at_rest(at, face)), None,
           compared=_asked),
    Change("services.ready", lambda at, face: services.ready(at, _job_of(at, "service", face)), None,
           compared=_steady, undone_by=str),
    Change("services.submit", lambda at, face: services.submit(
               at, HostingSpec(models=(f"named {face}",)), name=f"more {face}"), None,
           compared=_asked, undone_by=lambda face: f"more {face}"),
    Change("notes.write", lambda at, face: notes.write(at, "service", face, "Of the second camera."),
           lambda face: ("service", "notes", face, "Of the second camera."), lambda text: {"notes": text}),
    Change("tags.write", lambda at, face: tags.write(at, "service", face, ["v2"]),
           lambda face: ("service", "tags", face, "v2"), lambda found: {"tags": found}),
    Change("things.rename", lambda at, face: things.rename(at, "service", _at_rest(at, face), f"named {face}"),
           lambda face: ("service", "rename", face, f"named {face}")),
    Change("services.delete", lambda at, face: services.delete(at, f"named {face}"),
           lambda face: ("service", "delete", f"named {face}"), _deleted),
    Change("services.delete", lambda at, face: services.delete(at, _at_rest(at, f"more {face}")),
           lambda face: ("service", "delete", f"more {face}"), _deleted),
    Change("predictions.delete", lambda at, face: predictions.delete(at, f"named {face}"),
           lambda face: ("prediction", "delete", f"named {face}"), _deleted),
    Change("evaluations.delete", lambda at, face: evaluations.delete(at, f"named {face}"),
           lambda face: ("evaluation", "delete", f"named {face}"), _deleted),
    Change("models.delete", lambda at, face: models.delete(at, f"named {face}"),
           lambda face: ("model", "delete", f"named {face}"), _deleted),
    Change("runs.delete", lambda at, face: runs.delete(at, f"renamed {face}"),
           lambda face: ("run", "delete", f"renamed {face}"), _deleted),
    Change("datasets.delete", lambda at, face: datasets.delete(at, f"named {face}"),
           lambda face: ("dataset", "delete", f"named {face}"),
           _deleted),
]  # fmt: skip

PEOPLE = [
    Look("accounts.list_all", accounts.list_all, ("account", "list")),
    Look("accounts.get", lambda at: accounts.get(at, "vic"), None),
    Look("accounts.tokens", lambda at: accounts.tokens(at, "ada"), ("account", "tokens", "ada"),
         lambda told: [{**one, "kind": "token"} for one in told]),
    # Those before, since the commands sign in.
    Look("accounts.actions", lambda at: accounts.actions(at, before=4), ("account", "audit", "--limit", 1000),
         lambda told: told[-3:]),
]  # fmt: skip

CHANGES_OF_PEOPLE = [
    Change("accounts.note", lambda at, face: accounts.note(at, "tests", "a face"), None),
    Change("accounts.create", lambda at, face: accounts.create(at, face, PASSWORD, role="viewer"),
           lambda face: ("account", "create", face, "--role", "viewer", "--password-stdin"), given=PASSWORD),
    Change("accounts.change", lambda at, face: accounts.change(at, face, role="member"),
           lambda face: ("account", "role", face, "member")),
    Change("accounts.change", lambda at, face: accounts.change(at, face, password=OTHER_PASSWORD),
           lambda face: ("account", "password", face, "--password-stdin"), given=OTHER_PASSWORD),
    Change("accounts.change", lambda at, face: accounts.change(at, face, disabled=True),
           lambda face: ("account", "disable", face)),
    Change("accounts.change", lambda at, face: accounts.change(at, face, disabled=False),
           lambda face: ("account", "enable", face)),
    Change("accounts.create_token", lambda at, face: accounts.create_token(at, "ada", face, days=3),
           lambda face: ("account", "token", "ada", "--for", face, "--days", 3),
           lambda told: {**_but("kind")(told[1]), "secret": told[0]},
           compared=lambda told: {name: told[name] for name in ("id", "name", "used_at")}),
    Change("accounts.revoke", lambda at, face: accounts.revoke(at, "ada", _token_for(at, face)),
           lambda face: ("account", "revoke", "ada", f"TOKEN FOR {face}"), lambda _: {"revoked": "0123456789"}),
    Change("accounts.delete", accounts.delete, lambda face: ("account", "delete", face)),
]  # fmt: skip

# They submit and finish, and nothing else. The fixtures do so on the server.
COMPOSED = {
    "evaluations.create", "models.export", "predictions.create", "runs.resume", "runs.extend", "runs.clone",
    "uploads.send",
}  # fmt: skip

# They work on folders of the machine that runs them. Their commands refuse a server.
ONLY_HERE = {
    "accounts.bearer", "accounts.check_password", "accounts.note_of", "accounts.sign_in",
    "datasets.fitted", "datasets.mean_picture", "datasets.picture", "datasets.pictures",
    "evaluations.folder", "evaluations.of", "evaluations.page",
    "evaluations.place", "evaluations.predictions", "evaluations.predictions_path", "evaluations.tops", "jobs.keep",
    "jobs.standing",
    "logs.is_live", "logs.size", "models.newest_of", "models.file", "models.predict", "predictions.csv_parts",
    "predictions.folder", "predictions.write_csv", "runs.checkpoints", "runs.submit_all", "runs.weights",
    "services.captured_pieces", "services.named", "services.pack_captured",
    "models.bring", "models.pack", "models.pieces", "sweeps.finish", "sweeps.start", "sweeps.submit",
    "trials.find_rate", "trials.preview", "uploads.sweep",
}  # fmt: skip
COMMANDS_ONLY_HERE = [
    ("doctor",), ("quickstart",), ("serve",), ("jobs", "keep"), ("predict", "m", "p.png"),
    ("run", "preview", "shapes", "--out", "x"), ("run", "find-rate", "shapes"), ("network", "show", "my.py"),
    ("network", "draw", "my.py"), ("prediction", "export", "seen"),
    ("model", "pack", "exported", "--out", "x.zip"), ("model", "import", "x.zip"),
    ("run", "sweep", "shapes", "--batch-sizes", "8,16"), ("service", "run", "m"),
    ("service", "package", "m", "--out", "x", "--public"), ("service", "captured", "m", "--out", "x.zip"),
]  # fmt: skip
# Its JSON is an object a line, for as long as there are lines: the verb behind it is among the looks.
WITHOUT_END = {("jobs", "log")}
NEED_NO_WORKSPACE = {("network", "list"), ("login",), ("logout",)}


class Refused(NamedTuple):
    """What is refused, and as which kind of error."""

    kind: str
    call: Callable[[Where], Any] | None
    command: tuple[object, ...] | None


REFUSALS = [
    Refused("not-found", lambda at: uploads.get(at, "none"), None),
    Refused("not-found", lambda at: uploads.delete(at, "none"), None),
    Refused("not-found", lambda at: datasets.submit(at, "x", _spec(at).model_copy(update={"source": NO_UPLOAD})),
            ("dataset", "create", "x", NO_UPLOAD)),
    Refused("not-found", lambda at: predictions.submit(at, "exported", NO_UPLOAD),
            ("prediction", "create", "exported", NO_UPLOAD)),
    Refused("invalid-input", lambda at: uploads.send(at, Path(__file__)), None),
    Refused("invalid-input", lambda at: uploads.create(at, "no size"), None),
    Refused("not-found", lambda at: datasets.get(at, "nowhere"), ("dataset", "show", "nowhere")),
    Refused("not-found", lambda at: datasets.get(at, ""), ("dataset", "show", "")),
    Refused("not-found", lambda at: datasets.get(at, "shapez"), ("dataset", "show", "shapez")),
    Refused("not-found", lambda at: datasets.delete(at, "nowhere"), ("dataset", "delete", "nowhere")),
    Refused("not-found", lambda at: runs.get(at, "nowhere"), ("run", "show", "nowhere")),
    Refused("not-found", lambda at: runs.start(at, "nowhere"), ("train", "nowhere")),
    Refused("not-found", lambda at: runs.resume(at, "nowhere"), ("run", "resume", "nowhere")),
    Refused("not-found", lambda at: runs.extend(at, "nowhere", 1), ("run", "extend", "nowhere", "--epochs", 1)),
    Refused("not-found", lambda at: runs.clone(at, "nowhere"), ("run", "clone", "nowhere")),
    Refused("not-found", lambda at: runs.follow(at, "nowhere", ignore_event), ("run", "follow", "nowhere")),
    Refused("not-found", lambda at: runs.events(at, "nowhere"), ("run", "events", "nowhere")),
    Refused("not-found", lambda at: runs.epochs(at, "nowhere"), None),
    Refused("not-found", lambda at: runs.stop(at, "nowhere"), ("run", "stop", "nowhere")),
    Refused("not-found", lambda at: tags.read(at, "run", "nowhere"), ("run", "tags", "nowhere")),
    Refused("not-found", lambda at: tags.write(at, "run", "nowhere", ["v2"]), ("run", "tags", "nowhere", "v2")),
    Refused("invalid-input", lambda at: tags.write(at, "run", "trained", ["a,b"]), ("run", "tags", "trained", "a,b")),
    Refused("invalid-input", lambda at: tags.write(at, "run", "trained", [str(n) for n in range(21)]),
            ("run", "tags", "trained", *range(21))),
    Refused("invalid-input", None, ("run", "tags", "trained", "v2", "--clear")),
    Refused("invalid-input", lambda at: tags.used(at, "run", limit=-1), None),
    Refused("not-found", lambda at: runs.rename(at, "nowhere", "x"), ("run", "rename", "nowhere", "x")),
    Refused("not-found", lambda at: runs.delete(at, "nowhere"), ("run", "delete", "nowhere")),
    Refused("not-found", lambda at: evaluations.create(at, "nowhere"), ("evaluate", "nowhere")),
    Refused("not-found", lambda at: evaluations.get(at, "nowhere"), ("evaluation", "show", "nowhere")),
    Refused("not-found", lambda at: evaluations.get(at, "meas"), ("evaluation", "show", "meas")),
    Refused("not-found", lambda at: evaluations.delete(at, "nowhere"), ("evaluation", "delete", "nowhere")),
    Refused("not-found", lambda at: models.export(at, "nowhere"), ("model", "export", "nowhere")),
    Refused("not-found", lambda at: models.get(at, "trained"), ("model", "show", "trained")),
    Refused("not-found", lambda at: models.delete(at, "nowhere"), ("model", "delete", "nowhere")),
    Refused("not-found", lambda at: services.get(at, "nowhere"), ("service", "show", "nowhere")),
    Refused("not-found", lambda at: services.resume(at, "nowhere"), ("service", "resume", "nowhere")),
    Refused("not-found", lambda at: services.delete(at, "nowhere"), ("service", "delete", "nowhere")),
    Refused("not-found", lambda at: services.start(at, HostingSpec(models=("nowhere",))),
            ("service", "start", "nowhere", "--port", 0)),
    Refused("invalid-input", lambda at: services.start(at, HostingSpec(models=("exported",), share=0.5)),
            ("service", "start", "exported", "--port", 0, "--share", 0.5)),
    Refused("invalid-input", lambda at: services.start(at, HostingSpec(models=("exported",), host="0.0.0.0")), None),
    Refused("invalid-input", None,
            ("service", "start", "exported", "--port", 0, "--host", "0.0.0.0")),
    Refused("unavailable", lambda at: services.start(at, HostingSpec(models=("exported",), device="cuda:7")),
            ("service", "start", "exported", "--port", 0, "--device", "cuda:7")),
    Refused("not-found", lambda at: jobs.get(at, "nowhere"), ("jobs", "show", "nowhere")),
    Refused("not-found", lambda at: jobs.stop(at, "nowhere"), ("jobs", "stop", "nowhere")),
    Refused("not-found", lambda at: things.find(at, "nowhere", "run", "model"), None),
    Refused("not-found", lambda at: models.export(at, "trained", checkpoint="77"),
            ("model", "export", "trained", "--checkpoint", 77)),
    Refused("not-found", lambda at: evaluations.create(at, "trained", checkpoint="77"),
            ("evaluate", "trained", "--checkpoint", 77)),
    Refused("not-found", lambda at: runs.start(at, "shapes", TINY.model_copy(update={"net": "lenett"})),
            ("train", "shapes", "--net", "lenett")),
    Refused("invalid-input", lambda at: runs.start(at, "shapes", TINY.model_copy(update={"net": "/etc/my.py"})),
            ("train", "shapes", "--net", "/etc/my.py")),
    Refused("invalid-input", None, ("train", "shapes", "--epochs", 0)),
    Refused("invalid-input", None, ("train", "shapes", "--priority", 1000)),
    Refused("invalid-input", None, ("dataset", "create", "x", "PICTURES", "--val-percent", 120)),
    Refused("usage", None, ("evaluate", "trained", "--split", "tset")),
    Refused("invalid-input", lambda at: evaluations.create(at, "trained", split="tset"), None),
    Refused("invalid-input", lambda at: runs.extend(at, "trained", 0), ("run", "extend", "trained", "--epochs", 0)),
    Refused("invalid-input", lambda at: runs.extend(at, "trained", 10**9),
            ("run", "extend", "trained", "--epochs", 10**9)),
    Refused("invalid-input", lambda at: runs.extend(at, "trained", 1, device="gpu"),
            ("run", "extend", "trained", "--epochs", 1, "--device", "gpu")),
    Refused("invalid-input", lambda at: runs.list_all(at, limit=-1), ("run", "list", "--limit", -1)),
    Refused("invalid-input", lambda at: jobs.list_all(at, limit=-1), ("jobs", "list", "--limit", -1)),
    Refused("invalid-input", lambda at: predictions.rows(at, "seen", limit=-1), None),
    Refused("invalid-input", lambda at: runs.rename(at, "trained", "a/b"), ("run", "rename", "trained", "a/b")),
    Refused("invalid-input", lambda at: runs.start(at, "shapes", TINY, name=" "),
            ("train", "shapes", *SETTINGS, "--name", " ")),
    Refused("invalid-input", lambda at: runs.events(at, "trained", 3), None),
    Refused("invalid-input", lambda at: datasets.create(at, "x", _spec(at).model_copy(update={"source": _nowhere(at)})),
            ("dataset", "create", "x", "PICTURES/nowhere", "--size", 32)),
    Refused("unavailable", lambda at: runs.start(at, "shapes", TINY.model_copy(update={"device": "cuda:7"})),
            ("train", "shapes", *SETTINGS, "--device", "cuda:7")),
    Refused("conflict", lambda at: datasets.create(at, "shapes", _spec(at)), _create("shapes")),
    Refused("conflict", lambda at: runs.start(at, "shapes", TINY, name="trained"),
            ("train", "shapes", *SETTINGS, "--name", "trained")),
    Refused("conflict", lambda at: evaluations.create(at, "trained", name="measured"),
            ("evaluate", "trained", "--name", "measured")),
    Refused("conflict", lambda at: models.export(at, "trained", name="exported"),
            ("model", "export", "trained", "--name", "exported")),
    Refused("conflict", lambda at: datasets.delete(at, "shapes"), ("dataset", "delete", "shapes")),
    Refused("conflict", lambda at: runs.delete(at, "trained"), ("run", "delete", "trained")),
    Refused("conflict", lambda at: models.delete(at, "exported"), ("model", "delete", "exported")),
    Refused("conflict", lambda at: runs.resume(at, "trained"), ("run", "resume", "trained")),
    Refused("conflict", lambda at: runs.stop(at, "trained"), ("run", "stop", "trained")),
    Refused("conflict", lambda at: jobs.stop(at, "trained"), ("jobs", "stop", "trained")),
]  # fmt: skip

REFUSALS_OF_PEOPLE = [
    Refused("not-found", lambda at: accounts.get(at, "nobody"), None),
    Refused("not-found", lambda at: accounts.change(at, "nobody", role="viewer"),
            ("account", "role", "nobody", "viewer")),
    Refused("not-found", lambda at: accounts.tokens(at, "nobody"), ("account", "tokens", "nobody")),
    Refused("not-found", lambda at: accounts.revoke(at, "ada", "none"), ("account", "revoke", "ada", "none")),
    Refused("conflict", lambda at: accounts.create(at, "ada", PASSWORD),
            ("account", "create", "ada", "--password-stdin")),
    Refused("conflict", lambda at: accounts.delete(at, "ada"), ("account", "delete", "ada")),
    Refused("conflict", lambda at: accounts.change(at, "ada", role="viewer"), ("account", "role", "ada", "viewer")),
    Refused("invalid-input", lambda at: accounts.actions(at, limit=-1), ("account", "audit", "--limit", -1)),
    Refused("invalid-input", lambda at: accounts.create(at, "A b", PASSWORD), ("account", "create", "A b")),
    Refused("invalid-input", lambda at: accounts.change(at, "vic", password="short"), None),
]  # fmt: skip

REFUSALS_WHILE_BUSY = [
    Refused("conflict", lambda at: runs.rename(at, "trained", "halted"), ("run", "rename", "trained", "halted")),
    Refused("conflict", lambda at: runs.get(at, "waiting"), ("run", "show", "waiting")),
    Refused("conflict", lambda at: runs.delete(at, "waiting"), ("run", "delete", "waiting")),
    Refused("conflict", lambda at: runs.clone(at, "waiting"), ("run", "clone", "waiting")),
    Refused("not-found", lambda at: evaluations.create(at, "waiting", split="val", checkpoint="first"),
            ("evaluate", "waiting", "--split", "val", "--checkpoint", "first")),
    Refused("not-found", lambda at: models.export(at, "waiting", checkpoint="first"),
            ("model", "export", "waiting", "--checkpoint", "first")),
    Refused("conflict", lambda at: models.get(at, "later face0"), ("model", "show", "later face0")),
    Refused("conflict", lambda at: runs.delete(at, "long"), ("run", "delete", "long")),
    Refused("conflict", lambda at: runs.rename(at, "long", "longer"), ("run", "rename", "long", "longer")),
    Refused("conflict", lambda at: runs.extend(at, "long", 1), ("run", "extend", "long", "--epochs", 1)),
    Refused("not-found", lambda at: runs.get(at, "queued face0"), ("run", "show", "queued face0")),
]  # fmt: skip


def _job_of(at: Where, kind: str, name: str) -> Any:
    return next(job for job in reversed(jobs.list_all(at)) if (job.kind, job.name) == (kind, name))


def _nowhere(at: Where) -> Path:
    return _spec(at).source / "nowhere"


def _upload(at: Where, name: str) -> str:
    return next(one.upload.id for one in uploads.list_all(at) if one.upload.name == name)


def _token_for(at: Where, purpose: str) -> str:
    return next(token.id for token in accounts.tokens(at, "ada") if token.name == purpose)


def _words(faces: Faces, command: tuple[object, ...]) -> list[object]:
    return [_word(faces, word) if isinstance(word, str) else word for word in command]


def _word(faces: Faces, word: str) -> str:
    if word.startswith("TOKEN FOR "):
        return _token_for(faces.ws, word.removeprefix("TOKEN FOR "))
    return word.replace("PICTURES", str(_spec(faces.ws).source)) if "PICTURES" in word else word


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.verb)
def test_what_is_looked_at_is_the_same(faces: Faces, look: Look) -> None:
    _look(faces, look)


@pytest.mark.parametrize("look", PEOPLE, ids=lambda look: look.verb)
def test_people_are_the_same(people: Faces, look: Look) -> None:
    _look(people, look)


@pytest.mark.parametrize("change", CHANGES_OF_PEOPLE, ids=lambda change: change.verb)
def test_people_are_changed_alike(people: Faces, change: Change) -> None:
    _make_four(people, change)


@pytest.mark.parametrize("refused", REFUSALS_OF_PEOPLE, ids=lambda refused: refused.kind)
def test_changes_of_people_are_refused_alike(people: Faces, refused: Refused) -> None:
    _refuse(people, refused)


def test_accounts_are_changed_in_person(people: Faces, faces: Faces) -> None:
    secret, _ = accounts.create_token(people.ws, "ada", "in person")
    with vizsla.connect(people.server.url, secret) as server:
        assert accounts.get(server, "vic").role == "viewer"
        for call in (
            lambda: accounts.create(server, "eve", PASSWORD),
            lambda: accounts.change(server, "vic", role="admin"),
            lambda: accounts.create_token(server, "ada", "another"),
            lambda: accounts.delete(server, "vic"),
        ):
            with pytest.raises(Forbidden, match="A token cannot do this"):
                call()
    with pytest.raises(NotSignedIn, match="do not belong"):
        vizsla.connect(people.server.url, account="ada", password=OTHER_PASSWORD)
    # Who changes their own password goes on with the new one.
    with vizsla.connect(people.server.url, account="vic", password=PASSWORD) as server:
        accounts.change(server, "vic", password=OTHER_PASSWORD)
        assert accounts.change(server, "vic", password=PASSWORD).name == "vic"
        with pytest.raises(Forbidden):
            accounts.list_all(server)
    # The first account of a workspace is nobody's from afar.
    with pytest.raises(Forbidden, match="on the machine"):
        accounts.create(faces.server, "ada", PASSWORD)
    refused = faces.command(1, "account", "create", "ada", "--password-stdin", given=PASSWORD)
    assert (refused.status, refused.told["error"]["kind"]) == (1, "forbidden")


def _look(faces: Faces, look: Look) -> None:
    here, there = look.call(faces.python(0)), look.call(faces.python(1))
    measured = MEASURED if look.verb == "machine.held" else set()
    expected = without(plain(here), measured)
    assert without(plain(there), measured) == expected
    if not measured:
        assert here == there, "of the same types too"
    if look.command is not None:
        answers = [faces.command(number, *_words(faces, look.command)) for number in (0, 1)]
        assert [answer.status for answer in answers] == [0, 0]
        assert [without(look.part(answer.told), measured) for answer in answers] == [expected, expected]


@pytest.mark.parametrize("change", WHILE_FREE, ids=lambda change: change.verb)
def test_what_is_made_is_alike(faces: Faces, change: Change) -> None:
    _make_four(faces, change)


@pytest.mark.parametrize("refused", REFUSALS, ids=lambda refused: refused.kind)
def test_what_is_refused_is_refused_alike(faces: Faces, refused: Refused) -> None:
    _refuse(faces, refused)


def test_verbs_that_wait_on_a_server(steered: Steered) -> None:
    """The others of `COMPOSED` have made what is looked at."""
    assert steered.states == ["stopped"] * 3
    new, resumed, extended = steered.told
    assert {"starting", "started", "step", "stopped"} <= set(new)
    assert {"starting", "resumed", "step", "stopped"} <= set(resumed)
    assert "started" not in resumed, "what was told before is no news"
    assert extended[-1] == "stopped"


@pytest.mark.parametrize("change", WHILE_BUSY, ids=lambda change: change.verb)
def test_what_is_changed_is_alike(busy: Faces, change: Change) -> None:
    _make_four(busy, change)


@pytest.mark.parametrize("refused", REFUSALS_WHILE_BUSY, ids=lambda refused: refused.kind)
def test_what_is_refused_meanwhile_is_refused_alike(busy: Faces, refused: Refused) -> None:
    _refuse(busy, refused)


def test_what_waits_for_a_run_that_is_stopped_fails_alike(busy: Faces) -> None:
    parent = runs.submit(busy.server, "shapes", LONG, name="unlucky")
    children = evaluations.submit(busy.ws, "unlucky", split="val"), models.submit(busy.server, "unlucky")
    jobs.stop(busy.server, parent.id)
    for child, finish in zip(children, (evaluations.finish, models.finish), strict=True):
        here, there = (refusal(partial(finish, busy.python(number), child)) for number in (0, 1))
        assert there == here
        assert here["kind"] == "conflict"
        assert "The run 'unlucky', which it needs, was not made: stopped before it began" in here["what"]


def _make_four(faces: Faces, change: Change) -> None:
    told = []
    for number in range(4):
        face = f"face{number}"
        if number > 1 and change.command is not None:
            answer = faces.command(number - 2, *_words(faces, change.command(face)), given=change.given)
            assert answer.status == 0, answer
            found = answer.told
        else:
            found = plain(change.call(faces.python(number % 2), face))
            found = change.printed(found) if change.command is not None else found
        told.append(alike(change.compared(found)))
        if change.undone_by is not None:
            jobs.stop(faces.ws, change.undone_by(face))
    for one in told[1:]:
        assert one == told[0]


def _refuse(faces: Faces, refused: Refused) -> None:
    call, expected = refused.call, None
    if call is not None:
        here, there = (refusal(lambda number=number: call(faces.python(number))) for number in (0, 1))
        assert there == here
        assert here["kind"] == refused.kind
        expected = {name: text for name, text in here.items() if name != "type"}
    if refused.command is not None:
        here, there = (faces.command(number, *_words(faces, refused.command), given=PASSWORD) for number in (0, 1))
        assert there == here
        assert here.status == (2 if refused.kind == "usage" else 1)
        assert here.told["error"]["kind"] == refused.kind
        if expected is not None:
            assert here.told["error"] == expected


@pytest.mark.parametrize("command", COMMANDS_ONLY_HERE, ids=" ".join)
def test_commands_that_work_here_only_say_so(faces: Faces, command: tuple[object, ...]) -> None:
    refused = faces.command(1, *command)
    assert refused.status == 1
    assert "This command asks no server." in refused.told["error"]["what"]


def test_every_verb_has_its_faces() -> None:
    verbs = {f"{noun}.{name}" for noun in NOUNS for name in _verbs(import_module(f"vizsla.api.{noun}"))}
    rows = {row.verb for row in (*LOOKS, *PEOPLE, *WHILE_FREE, *WHILE_BUSY, *CHANGES_OF_PEOPLE)}
    assert rows | COMPOSED | ONLY_HERE == verbs
    assert not rows & COMPOSED
    assert not rows & ONLY_HERE


def test_the_page_names_what_works_here_only() -> None:
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    verbs = page.partition("These take a workspace only")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z]+\.[a-z_]+)`", verbs)) == ONLY_HERE
    told = page.partition("- **Only here** work")[2].partition("; they say so")[0]
    named = set(re.findall(r"`([a-z -]+)`", " ".join(told.split())))
    commands = [" ".join(command) + " " for command in COMMANDS_ONLY_HERE]
    assert [command for command in commands if not any(command.startswith(f"{name} ") for name in named)] == []
    assert [name for name in named if not any(command.startswith(f"{name} ") for command in commands)] == []


# What a verb is given for its parameters of these names; "x" for all others.
GIVEN = {"specs": [TINY], "names": ["x"], "job": JobSpec(), "out": Path("x.zip"), "path": Path(__file__)}


@pytest.mark.parametrize("verb", sorted(ONLY_HERE))
def test_verbs_that_work_here_only_refuse_a_server(verb: str) -> None:
    noun, _, name = verb.partition(".")
    call = getattr(import_module(f"vizsla.api.{noun}"), name)
    parameters = list(inspect.signature(call).parameters.values())[1:]
    given = {
        one.name: GIVEN.get(one.name, "x")
        for one in parameters
        if one.default is one.empty and one.kind is not one.VAR_POSITIONAL
    }
    if verb in ("sweeps.start", "sweeps.submit"):
        given["batch_sizes"] = [8, 16]
    with vizsla.connect("http://127.0.0.1:9") as server, pytest.raises(InvalidInput, match="asked of a server"):
        call(server, **given)


def _verbs(module: Any) -> dict[str, Callable[..., Any]]:
    """The functions of a module that take a workspace first."""
    found = {}
    for name, verb in inspect.getmembers(module, inspect.isfunction):
        parameters = list(inspect.signature(verb).parameters.values())
        takes = bool(parameters) and "Workspace" in str(parameters[0].annotation)
        if verb.__module__ == module.__name__ and not name.startswith("_") and takes:
            found[name] = verb
    return found


def test_the_client_has_the_same_signatures() -> None:
    num_served = 0
    for noun in NOUNS:
        for name, verb in _verbs(import_module(f"vizsla.api.{noun}")).items():
            if not hasattr(verb, "__wrapped__"):
                continue
            num_served += 1
            here = inspect.signature(verb)
            there = inspect.signature(getattr(import_module(f"vizsla.client.{noun}"), name))
            assert list(there.parameters.values())[1:] == list(here.parameters.values())[1:], f"{noun}.{name}"
            assert there.return_annotation == here.return_annotation, f"{noun}.{name}"
    assert num_served > 30


def test_every_command_is_among_them() -> None:
    headings = [heading.split() for heading in re.findall(r"^#+ vizsla (.+)$", app.generate_docs(), re.MULTILINE)]
    commands = {tuple(words) for words in headings if sum(words == other[: len(words)] for other in headings) == 1}
    rows = [row.command for row in (*LOOKS, *PEOPLE) if row.command]
    rows += [row.command("face") for row in (*WHILE_FREE, *WHILE_BUSY, *CHANGES_OF_PEOPLE) if row.command]
    rows += COMMANDS_ONLY_HERE
    covered = {command for command in commands for row in rows if row[: len(command)] == command}
    assert commands - covered == NEED_NO_WORKSPACE | WITHOUT_END
