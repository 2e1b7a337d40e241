"""The queue's rows: what is wanted, in which state it is, and every state that it was in.

A job changes its state only from the one that its reader saw: of two processes that would both start or end it, one
finds that it comes too late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from vizsla.errors import Conflict, NotFound, did_you_mean
from vizsla.events import now
from vizsla.ids import new_id
from vizsla.store.pages import Cut, cut
from vizsla.store.rows import LIVE, Change, Job, Kind, State, Thing
from vizsla.store.tables import job, job_change, job_need

NAMES_LOOKED_AT = 1000
"""of the newest jobs, for who misspelt one"""


class Changed(NamedTuple):
    """A change of a job's state, among those of all jobs."""

    number: int
    """higher than that of every change before"""
    change: Change
    job: Job
    """as it is now"""


class Jobs:
    """The queue in a database. Every method is one transaction."""

    def __init__(self, engine: Engine, writer: Engine) -> None:
        self._engine = engine
        self._writer = writer

    def add(
        self,
        kind: Kind,
        thing: str,
        name: str,
        *,
        owner: str,
        need: dict[str, Any],
        priority: int = 0,
        retries: int = 0,
        needed: Sequence[str] = (),
    ) -> Job:
        """Put work on a thing into the queue; see `add_all`."""
        things = [Thing(kind, thing, name)]
        return self.add_all(things, owner=owner, need=need, priority=priority, retries=retries, needed=needed)[0]

    def add_all(
        self,
        things: Sequence[Thing],
        *,
        owner: str,
        need: dict[str, Any],
        priority: int = 0,
        retries: int = 0,
        needed: Sequence[str] = (),
    ) -> list[Job]:
        """Put work on some things into the queue, in this order; all of it or none.

        Args:
            needed: ids of the jobs that have to be done before.

        Raises:
            Conflict: there is work on one of them in the queue already.
        """
        added = [_made(thing, owner=owner, need=need, priority=priority, retries=retries) for thing in things]
        added = [made._replace(id=id) for id, made in zip(sorted(made.id for made in added), added, strict=True)]
        with self._writer.begin() as connection:
            for made in added:
                _insert(connection, made)
                if needed:
                    rows = [{"job_id": made.id, "needed_id": other} for other in dict.fromkeys(needed)]
                    connection.execute(insert(job_need), rows)
        return added

    def found(self, thing: Thing, *, owner: str, need: dict[str, Any], held: tuple[str, ...], retries: int) -> Job:
        """Note work that goes on already, with the devices that it holds.

        Raises:
            Conflict: there is work on it in the queue already.
        """
        made = _made(thing, owner=owner, need=need, priority=0, retries=retries)
        running = made._replace(state="running", cause="found at work, and not in the queue", attempt=1, held=held)
        with self._writer.begin() as connection:
            _insert(connection, running)
        return running

    def change(self, seen: Job, state: State, cause: str = "", **columns: Any) -> Job | None:
        """Bring a job from the state in which it was seen into another; None when it is not in that state any more."""
        changed = seen._replace(state=state, cause=cause, changed_at=now(), **columns)
        values = changed._asdict() | {"stop_asked": job.c.stop_asked}  # asked at any time, by anybody
        same = (job.c.id == seen.id) & (job.c.state == seen.state) & (job.c.attempt == seen.attempt)
        with self._writer.begin() as connection:
            if connection.execute(update(job).where(same).values(values)).rowcount == 0:
                return None
            connection.execute(insert(job_change).values(_change(changed)))
        return changed

    def explain(self, seen: Job, cause: str) -> None:
        """Say why a job waits. That is no change of its state."""
        same = (job.c.id == seen.id) & (job.c.state == seen.state)
        with self._writer.begin() as connection:
            connection.execute(update(job).where(same).values(cause=cause))

    def ask_stop(self, id: str) -> None:
        """Ask that a job be stopped. One that has come to its end stays as it is."""
        with self._writer.begin() as connection:
            connection.execute(update(job).where((job.c.id == id) & job.c.state.in_(LIVE)).values(stop_asked=True))

    def last_ended(self, limit: int) -> list[Job]:
        """The jobs that have ended, the last one first."""
        query = select(job).where(job.c.state.not_in(LIVE)).order_by(job.c.changed_at.desc(), job.c.id.desc())
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(query.limit(limit))]

    def get(self, id: str) -> Job:
        """The job of this id.

        Raises:
            NotFound: there is none.
        """
        found = self._some(job.c.id == id)
        if not found:
            raise NotFound(f"There is no job {id[:40]!r}.")
        return found[0]

    def page(self, how: Cut, *, name: str | None = None, **same: str | None) -> list[Job]:
        """Some of all jobs.

        Args:
            name: only those of things that have this in their name, in whatever case.
            same: columns and what is to stand in them; None: anything.
        """
        query = select(job).where(*(job.c[column] == value for column, value in same.items() if value is not None))
        if name is not None:
            query = query.where(job.c.name.icontains(name, autoescape=True))
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(cut(query, job, how))]

    def last_change(self) -> int:
        """The number of the newest change of a state; 0 when there was none."""
        with self._engine.connect() as connection:
            return connection.execute(select(func.max(job_change.c.number))).scalar() or 0

    def changes(self, after: int, limit: int) -> list[Changed]:
        """The changes of states that came after the one of this number, oldest first."""
        columns = [job_change.c[name].label(f"to_{name}") for name in ("number", *Change._fields)]
        query = select(*columns, job).join(job, job.c.id == job_change.c.job_id).where(job_change.c.number > after)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(job_change.c.number).limit(limit))
            return [
                Changed(row.to_number, Change(row.to_state, row.to_at, row.to_attempt, row.to_cause), _job(row))
                for row in rows
            ]

    def find(self, reference: str) -> Job:
        """The one job that `reference` means: an id or its beginning, or that of a thing by its name or id.

        Of a thing it is the one that has not ended, else the newest.

        Raises:
            NotFound: there is none, or more than one is meant.
        """
        if exact := self._some(job.c.id == reference):
            return exact[0]  # whatever names others have given to their things
        with self._engine.connect() as connection:
            meant = (job.c.id == reference) | (job.c.thing == reference) | (job.c.name == reference)
            live = job.c.state.in_(LIVE)
            near = job.c.id.startswith(reference, autoescape=True)
            newest = select(job).order_by(job.c.created_at.desc(), job.c.id.desc()).limit(2)
            # The first that finds something counts: of a thing by its name, work that goes on before what has ended.
            rows = list(connection.execute(newest.where(meant & live)))
            rows = rows or list(connection.execute(newest.where(meant).limit(1)))
            rows = rows or (list(connection.execute(newest.where(near))) if reference else [])
        if len(rows) == 1:
            return _job(rows[0])
        what = f"There is no job {reference!r}" if not rows else f"{reference!r} may mean more than one job"
        near_names = did_you_mean(reference, [one.name for one in self.newest(NAMES_LOOKED_AT)] if not rows else [])
        raise NotFound(f"{what}.", remedy=f"{near_names} `vizsla jobs list` shows them all.".strip())

    def live(self) -> list[Job]:
        """The jobs that have not come to their end, oldest first."""
        return self._some(job.c.state.in_(LIVE))

    def live_of(self, thing: str) -> Job | None:
        """The job that is to work, or works, on a thing."""
        found = self._some((job.c.thing == thing) & job.c.state.in_(LIVE))
        return found[0] if found else None

    def newest(self, limit: int) -> list[Job]:
        """The newest jobs, newest first."""
        query = select(job).order_by(job.c.created_at.desc(), job.c.id.desc()).limit(limit)
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(query)]

    def newest_of(self, reference: str, kinds: Sequence[Kind]) -> Job | None:
        """The newest job of a thing of these kinds, by its id or name."""
        meant = ((job.c.thing == reference) | (job.c.name == reference)) & job.c.kind.in_(kinds)
        query = select(job).where(meant).order_by(job.c.created_at.desc(), job.c.id.desc()).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return _job(row) if row else None

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        query = select(job.c.state, func.count()).group_by(job.c.state)
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def needed(self) -> dict[str, list[Job]]:
        """The jobs that have to be done before each of the queued ones that need any, by its id."""
        waiting = job.alias()
        query = (
            select(waiting.c.id.label("waiting"), job)
            .select_from(job_need)
            .join(waiting, waiting.c.id == job_need.c.job_id)
            .join(job, job.c.id == job_need.c.needed_id)
            .where(waiting.c.state == "queued")
            .order_by(job.c.created_at, job.c.id)
        )
        found: dict[str, list[Job]] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.waiting, []).append(_job(row))
        return found

    def history(self, id: str) -> list[Change]:
        """Every state that a job was in, oldest first."""
        columns = [job_change.c[name] for name in Change._fields]
        query = select(*columns).where(job_change.c.job_id == id).order_by(job_change.c.number)
        with self._engine.connect() as connection:
            return [Change(*row) for row in connection.execute(query)]

    def _some(self, which: Any) -> list[Job]:
        query = select(job).where(which).order_by(job.c.created_at, job.c.id)
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(query)]


def _made(thing: Thing, *, owner: str, need: dict[str, Any], priority: int, retries: int) -> Job:
    at = now()
    return Job(
        new_id(),
        thing.kind,
        thing.id,
        thing.name,
        owner,
        priority,
        need,
        retries,
        created_at=at,
        state="queued",
        changed_at=at,
        cause="",
        attempt=0,
        held=(),
        stop_asked=False,
        failure=None,
        error=None,
    )


def _insert(connection: Connection, made: Job) -> None:
    """Add a job and its first state.

    Raises:
        Conflict: there is work on the same thing in the queue already.
    """
    same = select(job).where((job.c.thing == made.thing) & job.c.state.in_(LIVE))
    if (other := connection.execute(same).first()) is not None:
        raise Conflict(
            f"The {made.kind} {made.name!r} is {other.state} already.",
            remedy=f"Wait until it has ended, or stop it: vizsla jobs stop {other.id}",
        )
    connection.execute(insert(job).values(made._asdict()))
    connection.execute(insert(job_change).values(_change(made)))


def _change(made: Job) -> dict[str, Any]:
    return {
        "job_id": made.id,
        "attempt": made.attempt,
        "state": made.state,
        "at": made.changed_at,
        "cause": made.cause,
    }


def _job(row: Row[*tuple[Any, ...]]) -> Job:
    fields = {name: row._mapping[name] for name in Job._fields}
    assert fields["state"] in get_args(State), fields
    return Job(**fields | {"held": tuple(fields["held"])})
