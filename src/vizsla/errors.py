"""One family of expected errors: what went wrong, where, and what to do instead.

Faces (CLI, REST) print these without a traceback; every other exception is a defect and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VizslaError(Exception):
    """An expected failure. `what` is a full sentence, `where` names the file or field, `remedy` says what to do."""

    kind = "error"
    trace = ""
    """the traceback of a defect in another process"""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.what} ({self.where})" if self.where else self.what
        return f"{text}\n{self.remedy}" if self.remedy else text

    def as_dict(self) -> dict[str, str]:
        """The error as plain JSON, to cross a process boundary or to be printed by `--json`."""
        return {"kind": self.kind, "what": self.what, "where": self.where, "remedy": self.remedy}


class InvalidInput(VizslaError):
    """Something the user gave cannot be used: a folder, a picture, a setting."""

    kind = "invalid-input"


class NotFound(VizslaError):
    """A name, an id or a file that does not exist."""

    kind = "not-found"


class Conflict(VizslaError):
    """The name is taken, or another process is at work on the same thing."""

    kind = "conflict"


class NotSignedIn(VizslaError):
    """Nothing proves who asks."""

    kind = "not-signed-in"


class Forbidden(VizslaError):
    """Who asks may not do this."""

    kind = "forbidden"


class TooMany(VizslaError):
    """So often, or so much at once, is not allowed."""

    kind = "too-many"
    retry_after_s: int | None = None
    """when it may be allowed again"""


class DiskFull(VizslaError):
    """There is not, or no longer, room on the disk for what has to be written."""

    kind = "disk-full"


class Unavailable(VizslaError):
    """Something outside is needed and not to be had: weights, a package, a device."""

    kind = "unavailable"


class DatabaseUnavailable(VizslaError):
    """The database does not answer, or is busy for too long: the same may go well in a moment."""

    kind = "database-unavailable"


class TooLarge(VizslaError):
    """More was sent than one request may hold."""

    kind = "too-large"


class Busy(VizslaError):
    """What could be done is not, because much else is; later there will be room."""

    kind = "busy"


class TooSlow(VizslaError):
    """The work took longer than it may."""

    kind = "too-slow"


class TrainingFailed(VizslaError):
    """Training ran and cannot go on: a loss that is not finite, a device out of memory."""

    kind = "training-failed"


class ExportFailed(VizslaError):
    """A network cannot be made a graph, or the graph does not agree with it."""

    kind = "export-failed"


class WorkerDied(VizslaError):
    """A worker process ended without saying why."""

    kind = "worker-died"


def from_dict(fields: dict[str, str]) -> VizslaError:
    """The inverse of `VizslaError.as_dict`; a kind that is not known becomes a plain `VizslaError`."""
    kinds = {cls.kind: cls for cls in VizslaError.__subclasses__()}
    cls = kinds.get(fields.get("kind", ""), VizslaError)
    error = cls(fields.get("what", "unknown error"), where=fields.get("where", ""), remedy=fields.get("remedy", ""))
    error.kind = fields.get("kind", cls.kind)
    return error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the nearest known names, or "" when none is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
