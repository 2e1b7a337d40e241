"""Lists: filtered, sorted, and cut into pages of which each costs what it shows, however many things there are."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import orjson
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from vizsla.errors import InvalidInput, NotFound
from vizsla.store.pages import Cut, Place
from vizsla.store.queries import MAX_NAME
from vizsla.store.rows import Entry, Kind
from vizsla.store.tagnames import MAX_CHARACTERS, MAX_TAGS, plain
from vizsla.store.workspace import Workspace
from vizsla.web.kept import Kept
from vizsla.web.turns import turn

# Of these files are read, where the database cannot tell what is wanted.
LOOKED_AT = 500
STEP = 100
COLUMNS = {"created": "created_at", "changed": "changed_at", "name": "name"}


class Part(BaseModel):
    """Which part of a list is wanted, and in which order."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=200, description="Things to answer at most.")
    after: str | None = Field(None, max_length=1000, description="The `next` of the page before.")
    sort: str = "created"
    order: Literal["asc", "desc"] | None = Field(None, description="By default the newest first, and names from a.")
    owner: str | None = Field(None, max_length=MAX_NAME, description="Only what belongs to that one.")
    name: str | None = Field(None, max_length=MAX_NAME, description="Only what has this in its name.")

    @property
    def descending(self) -> bool:
        """Whether the last of the order comes first."""
        return self.order == "desc" if self.order else self.sort != "name"

    def cut(self, limit: int, after: Place | None) -> Cut:
        """The part after a place."""
        return Cut(limit, COLUMNS[self.sort], self.descending, after)

    def cursor(self, row: object) -> str:
        """The place behind a row, as the `next` of an answer."""
        place = [self.sort, self.descending, getattr(row, COLUMNS[self.sort]), getattr(row, "id")]  # noqa: B009
        return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")

    @property
    def place(self) -> Place | None:
        """The inverse of `cursor`, of `after`.

        Raises:
            InvalidInput: this is no place, or one of another order.
        """
        if self.after is None:
            return None
        try:
            padded = self.after.encode() + b"=" * (-len(self.after) % 4)
            sort, descending, value, id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            if (sort, descending) == (self.sort, self.descending) and isinstance(value, str) and isinstance(id, str):
                return Place(value, id)
        except (ValueError, TypeError):
            pass
        raise InvalidInput("This is no place to go on from in this order.", where="after", remedy="Begin without it.")


class Listing(Part):
    """Which part of a list of things is wanted, and in which order."""

    sort: Literal["created", "name"] = Field("created", description="What the order goes by.")
    tag: list[Annotated[str, Field(max_length=MAX_CHARACTERS)]] = Field(
        [],
        max_length=MAX_TAGS,
        description="Only what has this tag, in whatever case; may be given more than once: only what has all of them."
        " An empty one is none.",
    )

    @field_validator("tag", mode="before")
    @classmethod
    def _as_written(cls, given: object) -> object:
        """As tags are when they are written: their length is that of what is looked for. Forms send empty ones too."""
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            return given
        return [one for one in map(plain, given) if one]


class Selected(NamedTuple):
    """Some things of a kind."""

    items: list[bytes]
    """each as JSON"""
    next: str | None
    """the `after` of what follows, if there is more"""
    tags: dict[str, list[str]]
    """of those that have any, by their ids"""


def page(
    ws: Workspace,
    kept: Kept,
    kind: Kind,
    wanted: Listing,
    *,
    parents: Sequence[str | None] = (),
    **facts: str | None,
) -> Response:
    """Some of the finished things of a kind, as an answer; see `select`."""
    found = select(ws, kept, kind, wanted, parents=parents, **facts)
    following, tags = orjson.dumps(found.next), orjson.dumps(found.tags)
    body = b'{"items":[%b],"next":%b,"tags":%b}' % (b",".join(found.items), following, tags)
    return Response(body, media_type="application/json")


def select(
    ws: Workspace,
    kept: Kept,
    kind: Kind,
    wanted: Listing,
    *,
    parents: Sequence[str | None] = (),
    **facts: str | None,
) -> Selected:
    """Some of the finished things of a kind.

    Looks at the files of no more than `LOOKED_AT` things, so a page that is filtered by what is in them may hold few,
    or none, and there is more nevertheless.

    Args:
        parents: ids of what they were made from; None: anything.
        facts: what is to be found in their files, see `kept.Item`; None: anything.
    """
    asked = {name: value for name, value in facts.items() if value is not None}
    made_from = [id for id in parents if id is not None]
    found: dict[str, bytes] = {}
    place, looked, last = wanted.place, 0, None
    while looked < LOOKED_AT:
        # One more than is shown tells whether there is more.
        size = STEP if asked else wanted.limit - len(found)
        cut = wanted.cut(size + 1, place)
        with turn():
            rows = ws.store.page(kind, cut, owner=wanted.owner, name=wanted.name, parents=made_from, tags=wanted.tag)
            for number, entry in enumerate(rows[:size], 1):
                item = kept.get(ws, kind, entry.id, asked)
                if item is not None:
                    found[entry.id] = item.body
                last, looked = entry, looked + 1
                if len(found) == wanted.limit or looked == LOOKED_AT:
                    return _selected(ws, found, wanted.cursor(entry) if number < len(rows) else None)
        if last is None or len(rows) <= size:
            return _selected(ws, found, None)
        place = _place(wanted, last)
    raise AssertionError("the last thing that is looked at ends the page")


def _selected(ws: Workspace, found: dict[str, bytes], following: str | None) -> Selected:
    return Selected(list(found.values()), following, ws.store.tags.of(list(found)))


def _place(wanted: Listing, entry: Entry) -> Place:
    return Place(getattr(entry, COLUMNS[wanted.sort]), entry.id)


def parent_id(ws: Workspace, where: str, reference: str | None, *kinds: Kind) -> str | None:
    """The id of a thing that a list is filtered by.

    Raises:
        InvalidInput: there is no such thing.
    """
    if reference is None:
        return None
    try:
        return ws.store.exact(reference, *kinds).id
    except NotFound as error:
        raise InvalidInput(error.what, where=where, remedy="Give a whole name or an id.") from None
