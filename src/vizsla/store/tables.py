"""The tables, as SQLAlchemy Core. A change here goes with a new file in `migrations/versions/`."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, MetaData, String, Table, UniqueConstraint

metadata = MetaData()

# One row for everything that has a name: a dataset, run, model or evaluation.
entry = Table(
    "entry",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(100), nullable=False),
    Column("created_at", String(32), nullable=False),
    UniqueConstraint("kind", "name"),
)

# What a thing was made from: a run from its dataset, a model from its run.
link = Table(
    "link",
    metadata,
    Column("child_id", String(16), ForeignKey("entry.id", ondelete="CASCADE"), primary_key=True),
    Column("parent_id", String(16), ForeignKey("entry.id"), primary_key=True, index=True),
)
