"""The rows of the database as everybody else sees them: plain named tuples. Light: no SQL."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Kind = Literal["dataset", "run", "model", "evaluation", "prediction", "service", "rate"]
State = Literal["queued", "starting", "running", "stopping", "done", "failed", "stopped", "lost"]
Failure = Literal["error", "memory", "disk", "killed", "lost", "defect", "parent"]

Role = Literal["viewer", "member", "admin"]
CredentialKind = Literal["session", "token"]

LIVE: tuple[State, ...] = ("queued", "starting", "running", "stopping")
"""The states of a job that has not come to its end."""


class Job(NamedTuple):
    """A piece of work in the queue."""

    id: str
    kind: Kind
    """of the thing that it works on"""
    thing: str
    """id of that thing"""
    name: str
    """of the thing, when the job was made"""
    owner: str
    priority: int
    """a higher one comes first"""
    need: dict[str, Any]
    """the devices that it needs, see `vizsla.jobs.schedule.Need`"""
    retries: int
    """times that it is started again after its worker was killed or lost"""
    created_at: str
    state: State
    changed_at: str
    cause: str
    """why it is in this state, for people; "" where that goes without saying"""
    attempt: int
    """times that it was started"""
    held: tuple[str, ...]
    """the devices that it was given"""
    stop_asked: bool
    failure: Failure | None
    error: dict[str, str] | None
    """what it failed with, see `VizslaError.as_dict`"""

    @property
    def live(self) -> bool:
        """Whether it has not come to its end."""
        return self.state in LIVE


class Thing(NamedTuple):
    """What a job is to work on."""

    kind: Kind
    id: str
    name: str


class Change(NamedTuple):
    """A state that a job came into."""

    state: State
    at: str
    attempt: int
    cause: str


class Shown(NamedTuple):
    """A job, with every state that it was in."""

    job: Job
    history: list[Change]


class Entry(NamedTuple):
    """A thing that has a name."""

    id: str
    kind: Kind
    name: str
    created_at: str
    owner: str
    """an account, or a user of the machine"""


class Used(NamedTuple):
    """A tag in use."""

    tag: str
    things: int
    """of one kind that have it"""


TOKEN_DAYS = 90
"""for which a token proves something, unless another number is given"""


class Account(NamedTuple):
    """Someone who may use the server."""

    id: str
    name: str
    role: Role
    created_at: str
    disabled: bool


class Credential(NamedTuple):
    """What proves who asks: the session of a browser, or the token of a program. Its secret is not kept."""

    id: str
    kind: CredentialKind
    name: str
    created_at: str
    expires_at: str
    used_at: str | None


class Action(NamedTuple):
    """Something that was done, or tried."""

    number: int
    at: str
    account: str
    address: str
    action: str
    thing: str
    outcome: str
