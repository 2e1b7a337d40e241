"""Queries: names to ids, lineage, dependents. Rows leave here as plain named tuples."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from sqlalchemy import URL, Row, delete, insert, select, update
from sqlalchemy.exc import DatabaseError, IntegrityError

from vizsla.errors import Conflict, InvalidInput, NotFound, did_you_mean
from vizsla.events import now
from vizsla.ids import new_id
from vizsla.store import engines, schema
from vizsla.store.accounts import Accounts
from vizsla.store.answers import Answers
from vizsla.store.jobs import Jobs
from vizsla.store.pages import Cut, cut
from vizsla.store.rows import Entry, Kind
from vizsla.store.tables import entry, link
from vizsla.store.tags import Tags, having

MAX_NAME = 100


class Server(NamedTuple):
    """The database of a workspace on a PostgreSQL server."""

    url: URL
    workspace: str
    """what the database knows the workspace by"""
    root: Path
    """of the workspace: copies of the database lie in it"""


class Store:
    """One database. Every method is one transaction."""

    def __init__(self, where: Path | Server) -> None:
        """Open a SQLite file, or a database on a server, creating it or bringing its schema up to date."""
        file = isinstance(where, Path)
        self.engine = engines.sqlite(where) if isinstance(where, Path) else engines.postgresql(where.url)
        self._writer = self.engine.execution_options(writes=True)
        self.jobs = Jobs(self.engine, self._writer)
        self.accounts = Accounts(self.engine, self._writer)
        self.answers = Answers(self.engine, self._writer)
        self.tags = Tags(self.engine, self._writer)
        name = str(where) if isinstance(where, Path) else engines.shown(where.url)
        try:
            if isinstance(where, Path):
                self.created = schema.prepare(self._writer, name, where, where)
            else:
                self.created = schema.prepare(self._writer, name, where.url, where.root / "database")
                schema.claim(self._writer, name, where.workspace, where.root)
        except DatabaseError as error:
            self.close()
            said, _, _ = str(error.orig).partition("\n")
            raise Conflict(
                f"The database cannot be used: {said}.",
                where=name,
                remedy="If another process holds it, wait; if it is damaged, move it away: the folders rebuild it."
                if file
                else "It has to be empty at first, and the account has to own it: CREATE DATABASE name OWNER account",
            ) from None
        except BaseException:
            self.close()
            raise

    def add(
        self,
        kind: Kind,
        name: str,
        *,
        owner: str = "",
        parents: Sequence[str] = (),
        id: str | None = None,
        created_at: str = "",
        tags: Sequence[str] = (),
    ) -> Entry:
        """Take a name.

        Args:
            owner: whose it is to be.
            parents: ids of what the thing is made from.
            id: of a folder that is there already; else a new one.
            created_at: ISO time; now by default.
            tags: that its folder has already.

        Raises:
            InvalidInput: the name cannot be used.
            Conflict: the name is taken, or what it is made from is gone.
        """
        check_name(name)
        row = Entry(id or new_id(), kind, name, created_at or now(), owner)
        try:
            with self._writer.begin() as connection:
                connection.execute(insert(entry).values(row._asdict()))
                if parents:
                    links = [{"child_id": row.id, "parent_id": parent} for parent in dict.fromkeys(parents)]
                    connection.execute(insert(link), links)
                self.tags.put(connection, row.id, kind, tags)
        except IntegrityError:
            if self._named(kind, name):
                raise Conflict(
                    f"There is a {kind} named {name!r} already.",
                    remedy=f"Choose another name, or remove it with: {shlex.join(['vizsla', kind, 'delete', name])}",
                ) from None
            raise Conflict(f"What the {kind} {name!r} is made from was deleted meanwhile.") from None
        return row

    def found_on(self, id: str, parents: Sequence[str]) -> None:
        """Say that a thing is made from these too, which then stay as long as it does.

        Raises:
            Conflict: one of them is gone.
        """
        known = {parent.id for parent in self.parents(id)}
        links = [{"child_id": id, "parent_id": parent} for parent in dict.fromkeys(parents) if parent not in known]
        try:
            with self._writer.begin() as connection:
                if links:
                    connection.execute(insert(link), links)
        except IntegrityError:
            raise Conflict("What it is made from was deleted meanwhile.") from None

    def rename(self, id: str, name: str) -> None:
        """Give a thing another name.

        Raises:
            InvalidInput: the name cannot be used.
            Conflict: the name is taken.
        """
        check_name(name)
        try:
            with self._writer.begin() as connection:
                connection.execute(update(entry).where(entry.c.id == id).values(name=name))
        except IntegrityError:
            raise Conflict(f"The name {name!r} is taken.", remedy="Choose another name.") from None

    def exact(self, reference: str, *kinds: Kind) -> Entry:
        """The one thing of these kinds whose id or name is `reference`, an id before a name.

        Raises:
            NotFound: there is none, or things of several kinds have that name.
        """
        matches = self._exact(reference, kinds)
        if len(matches) == 1:
            return matches[0]
        what = " or ".join(kinds)
        raise NotFound(
            f"{reference[:MAX_NAME]!r} may mean {len(matches)} things."
            if matches
            else f"There is no {what} {reference[:MAX_NAME]!r}."
        )

    def _exact(self, reference: str, kinds: Sequence[Kind]) -> list[Entry]:
        for column in (entry.c.id, entry.c.name):
            query = select(entry).where((column == reference) & entry.c.kind.in_(kinds))
            with self.engine.connect() as connection:
                if rows := [_entry(row) for row in connection.execute(query)]:
                    return rows
        return []

    def find(self, reference: str, *kinds: Kind) -> Entry:
        """The one thing of these kinds that `reference` means: an id, a name, or the beginning of just one of them.

        Raises:
            NotFound: nothing, or more than one thing, is meant.
        """
        matches = self._exact(reference, kinds)
        if len(matches) == 1:
            return matches[0]
        what = " or ".join(kinds)
        rows = [row for kind in kinds for row in self.all(kind)]
        matches = matches or [
            row for row in rows if reference and (row.id.startswith(reference) or row.name.startswith(reference))
        ]
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(f"{row.kind} {row.name} ({row.id})" for row in matches[:5])
            more = f" and {len(matches) - 5} more" if len(matches) > 5 else ""
            raise NotFound(
                f"{reference!r} may mean {len(matches)} things: {names}{more}.",
                remedy="Say more of the name, or the id.",
            )
        self._refuse_other_kind(reference, kinds)
        self._refuse_unmade(reference, kinds)
        hint = did_you_mean(reference, [row.name for row in rows])
        raise NotFound(
            f"There is no {what} {reference!r}.", remedy=f"{hint} `vizsla {kinds[0]} list` shows them all.".strip()
        )

    def _refuse_unmade(self, reference: str, kinds: Sequence[Kind]) -> None:
        """Say what has become of the job that was to make a thing."""
        job = self.jobs.newest_of(reference, kinds)
        if job is not None and job.state in ("failed", "lost", "stopped"):
            why = f": {job.cause}" if job.cause else ""
            raise NotFound(
                f"There is no {job.kind} {job.name!r}: its job was {job.state}{why}"
                + ("" if why.endswith(".") else "."),
                remedy=f"`vizsla jobs show {job.id}` says more.",
            )

    def _refuse_other_kind(self, reference: str, kinds: tuple[Kind, ...]) -> None:
        others = (row for kind in get_args(Kind) if kind not in kinds for row in self.all(kind))
        for row in others:
            if reference in (row.id, row.name):
                verb = {"model": "model export", "evaluation": "evaluate"}.get(kinds[0]) if row.kind == "run" else None
                remedy = f"`vizsla {verb} {shlex.quote(row.name)}` makes one of it." if verb else ""
                raise NotFound(f"{reference!r} is a {row.kind}, not a {' or '.join(kinds)}.", remedy=remedy)

    def known(self, ids: Iterable[object]) -> set[str]:
        """Those of some ids, whatever they are, of which there is a thing."""
        query = select(entry.c.id).where(entry.c.id.in_([id for id in ids if isinstance(id, str)]))
        with self.engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def all(self, kind: Kind, *, tags: Sequence[str] = ()) -> list[Entry]:
        """All things of a kind, or those that have all of some tags, oldest first."""
        query = having(select(entry).where(entry.c.kind == kind), kind, tags).order_by(entry.c.created_at, entry.c.id)
        with self.engine.connect() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def page(
        self,
        kind: Kind,
        how: Cut,
        *,
        owner: str | None = None,
        name: str | None = None,
        parents: Sequence[str] = (),
        tags: Sequence[str] = (),
    ) -> list[Entry]:
        """Some of the things of a kind.

        Args:
            owner: only what belongs to that one.
            name: only what has this in its name, in whatever case.
            parents: only what was made from the things of these ids.
            tags: only what has all of these.
        """
        query = having(select(entry).where(entry.c.kind == kind), kind, tags)
        if owner is not None:
            query = query.where(entry.c.owner == owner)
        if name is not None:
            query = query.where(entry.c.name.icontains(name, autoescape=True))
        for parent in parents:
            query = query.where(entry.c.id.in_(select(link.c.child_id).where(link.c.parent_id == parent)))
        with self.engine.connect() as connection:
            return [_entry(row) for row in connection.execute(cut(query, entry, how))]

    def children(self, id: str) -> list[Entry]:
        """The things that were made from `id`."""
        query = select(entry).join(link, link.c.child_id == entry.c.id).where(link.c.parent_id == id)
        with self.engine.connect() as connection:
            return [_entry(row) for row in connection.execute(query.order_by(entry.c.created_at))]

    def parents(self, id: str) -> list[Entry]:
        """The things that `id` was made from."""
        query = select(entry).join(link, link.c.parent_id == entry.c.id).where(link.c.child_id == id)
        with self.engine.connect() as connection:
            return [_entry(row) for row in connection.execute(query.order_by(entry.c.created_at))]

    def remove(self, id: str) -> None:
        """Forget a thing. Its name is free again.

        Raises:
            Conflict: other things were made from it.
        """
        try:
            with self._writer.begin() as connection:
                connection.execute(delete(entry).where(entry.c.id == id))
        except IntegrityError:
            users = ", ".join(f"{child.kind} {child.name}" for child in self.children(id)[:5])
            raise Conflict(f"It is in use by {users}.", remedy="Delete those first.") from None

    def free_name(self, kind: Kind, stem: str) -> str:
        """`stem-1`, or the first number after it that no thing of this kind has."""
        taken = {row.name for row in self.all(kind)}
        stem = stem[: MAX_NAME - 8]
        number = 1
        while f"{stem}-{number}" in taken:
            number += 1
        return f"{stem}-{number}"

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def _named(self, kind: Kind, name: str) -> bool:
        query = select(entry.c.id).where(entry.c.kind == kind, entry.c.name == name)
        with self.engine.connect() as connection:
            return connection.execute(query).first() is not None


def check_name(name: str) -> None:
    """Raise `InvalidInput` unless `name` is 1 to 100 printable characters that can be typed as one argument."""
    if not name or len(name) > MAX_NAME or not name.isprintable() or name != name.strip() or name.startswith("-"):
        raise InvalidInput(
            f"{name[:120]!r} cannot be a name.",
            remedy=f"A name is 1 to {MAX_NAME} printable characters, without a dash or a space at its beginning.",
        )
    if "/" in name or "\\" in name:
        raise InvalidInput(f"{name!r} cannot be a name: it holds a slash.", remedy="Use a dash or a dot instead.")


def _entry(row: Row[Any]) -> Entry:
    return Entry(row.id, row.kind, row.name, row.created_at, row.owner)
