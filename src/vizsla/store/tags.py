"""Tags in the database: the rows by which lists are filtered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Select, delete, func, insert, select

from vizsla.store.rows import Kind, Used
from vizsla.store.tables import entry, tag, tag_stamp
from vizsla.store.tagnames import folded


def having(query: Select[Any], kind: Kind, tags: Sequence[str]) -> Select[Any]:
    """The rows of a query on entries of a kind that have all of some tags. An empty one is none: any will do."""
    for name in filter(None, map(folded, tags)):
        tagged = select(tag.c.entry_id).where((tag.c.kind == kind) & (tag.c.folded == name))
        query = query.where(entry.c.id.in_(tagged))
    return query


class Tags:
    """The tags in a database. Every method is one transaction, but for `put`, which is part of one."""

    def __init__(self, engine: Engine, writer: Engine) -> None:
        self._engine = engine
        self._writer = writer

    def stamp(self) -> str | None:
        """That of the last writing that the rows know, see `tagging`; None: they may know nothing."""
        with self._engine.connect() as connection:
            found: str | None = connection.execute(select(tag_stamp.c.stamp)).scalar()
        return found

    def replace(self, id: str, tags: Sequence[str], stamp: str | None = None) -> None:
        """Give a thing these tags and no others; nothing, where it is gone. With `stamp`, that is the last writing."""
        with self._writer.begin() as connection:
            _put_stamp(connection, stamp)
            connection.execute(delete(tag).where(tag.c.entry_id == id))
            kind = connection.execute(select(entry.c.kind).where(entry.c.id == id)).scalar()
            if kind is not None:
                self.put(connection, id, kind, tags)

    def make_anew(self, found: Mapping[str, Sequence[str]], but: Sequence[str], stamp: str | None) -> None:
        """Give things, by their ids, these tags, and all others none, but for some, which keep theirs."""
        with self._writer.begin() as connection:
            connection.execute(delete(tag).where(tag.c.entry_id.not_in(but)))
            # In one go: of 10,000 things, each with a statement of its own, the database would be held for seconds.
            known = connection.execute(select(entry.c.id, entry.c.kind)).all()
            rows = [row for id, kind in known if id not in but for row in _rows(id, kind, found.get(id, ()))]
            if rows:
                connection.execute(insert(tag), rows)
            _put_stamp(connection, stamp)

    def put(self, connection: Connection, id: str, kind: Kind, tags: Sequence[str]) -> None:
        """Give tags to a thing that has none."""
        if tags:
            connection.execute(insert(tag), _rows(id, kind, tags))

    def of(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """The tags of things that have any, by their ids."""
        found: dict[str, list[str]] = {}
        if not ids:
            return found
        query = select(tag).where(tag.c.entry_id.in_(ids)).order_by(tag.c.folded)
        with self._engine.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.entry_id, []).append(row.tag)
        return found

    def used(self, kind: Kind, limit: int) -> list[Used]:
        """The tags that most things of a kind have, at most `limit`."""
        number = func.count()
        query = (
            select(func.max(tag.c.tag), number)
            .where(tag.c.kind == kind)
            .group_by(tag.c.folded)
            .order_by(number.desc(), tag.c.folded)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [Used(*row) for row in connection.execute(query)]


def _rows(id: str, kind: Kind, tags: Sequence[str]) -> list[dict[str, str]]:
    return [{"entry_id": id, "folded": folded(one), "tag": one, "kind": kind} for one in tags]


def _put_stamp(connection: Connection, stamp: str | None) -> None:
    if stamp is not None:
        connection.execute(delete(tag_stamp))
        connection.execute(insert(tag_stamp).values(stamp=stamp))
