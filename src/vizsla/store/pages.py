"""Some of a list: cut out in the database, after the place where the page before has ended.

A place is what the last row had in the column that sorts, and its id. So a list that is read page by page repeats and
leaves out nothing that is there all the time, whatever is added and deleted meanwhile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Select, Table, tuple_


class Place(NamedTuple):
    """Where a page has ended."""

    value: str
    """in the column that sorts"""
    id: str


class Cut(NamedTuple):
    """Which part of a list, and in which order."""

    limit: int
    sort: str
    """the column"""
    descending: bool
    after: Place | None = None


def cut(query: Select[Any], table: Table, how: Cut) -> Select[Any]:
    """The rows of a query on `table` that are wanted."""
    columns = (table.c[how.sort], table.c.id)
    if how.after is not None:
        after = tuple(how.after)
        query = query.where(tuple_(*columns) < after if how.descending else tuple_(*columns) > after)
    return query.order_by(*(column.desc() if how.descending else column.asc() for column in columns)).limit(how.limit)
