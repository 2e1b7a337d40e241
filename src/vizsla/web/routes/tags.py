"""`/api/v1/tags`: the tags in use."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from vizsla.api import tags
from vizsla.store.rows import Kind
from vizsla.web.schema import Answer, Limit, Ws

router = APIRouter(prefix="/tags", tags=["tags"])


class UsedAnswer(Answer):
    """A tag in use."""

    tag: str
    things: int


@router.get("")
def list_tags(
    ws: Ws, kind: Annotated[Kind, Query(description="Of things of this kind.")], limit: Limit = 100
) -> list[UsedAnswer]:
    """The tags that most things of a kind have, and how many have each, the commonest first."""
    return [UsedAnswer.model_validate(one) for one in tags.used(ws, kind, limit=limit)]
