"""The tables, as SQLAlchemy Core. A change here goes with a new file in `migrations/versions/`."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Integer, MetaData, String, Table, Text, UniqueConstraint

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

# A piece of work in the queue. It outlives what it was to make, when that was refused or has been deleted.
job = Table(
    "job",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("thing", String(16), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("owner", String(100), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("need", JSON, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("changed_at", String(32), nullable=False),
    Column("cause", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("held", JSON, nullable=False),
    Column("stop_asked", Boolean, nullable=False),
    Column("failure", String(16)),
    Column("error", JSON),
)

# Every state that a job was in.
job_change = Table(
    "job_change",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("job_id", String(16), ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("at", String(32), nullable=False),
    Column("cause", Text, nullable=False),
)

# What a job waits for: the training for the dataset that is still being built.
job_need = Table(
    "job_need",
    metadata,
    Column("job_id", String(16), ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("needed_id", String(16), ForeignKey("job.id", ondelete="CASCADE"), primary_key=True, index=True),
)
