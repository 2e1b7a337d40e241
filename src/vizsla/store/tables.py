"""The tables, as SQLAlchemy Core. A change here goes with a new file in `migrations/versions/`."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# One row for everything that has a name: a dataset, run, model, evaluation, prediction or service.
entry = Table(
    "entry",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(100), nullable=False),
    Column("created_at", String(32), nullable=False),
    # An account, or a user of the machine; it may be gone.
    Column("owner", String(100), nullable=False),
    UniqueConstraint("kind", "name"),
    Index("ix_entry_kind_created_at", "kind", "created_at", "id"),
)

# What a thing was made from: a run from its dataset, a model from its run.
link = Table(
    "link",
    metadata,
    Column("child_id", String(16), ForeignKey("entry.id", ondelete="CASCADE"), primary_key=True),
    Column("parent_id", String(16), ForeignKey("entry.id"), primary_key=True, index=True),
)

# The tags of a thing, by which lists are filtered. Its folder has them too, and is believed, see `store/tagging.py`.
tag = Table(
    "tag",
    metadata,
    Column("entry_id", String(16), ForeignKey("entry.id", ondelete="CASCADE"), primary_key=True),
    # What tags are compared by, of which case folding may make three times as many characters.
    Column("folded", String(120), primary_key=True),
    Column("tag", String(40), nullable=False),
    # That of the thing: which tags are in use is then read from the index alone.
    Column("kind", String(16), nullable=False),
    Index("ix_tag_kind_folded", "kind", "folded", "entry_id", "tag"),
)

# One row: the stamp of the last writing of tags that these know, or none yet, see `store/tagging.py`.
tag_stamp = Table("tag_stamp", metadata, Column("stamp", String(32), primary_key=True))

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
    Index("ix_job_created_at", "created_at", "id"),
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

# Who may use the server.
account = Table(
    "account",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("disabled", Boolean, nullable=False),
)

# What proves who asks: a session of a browser, or a token of a program. Of its secret only the digest is kept.
credential = Table(
    "credential",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("account_id", String(16), ForeignKey("account.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(100), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32), nullable=False),
    Column("used_at", String(32)),
)

# What was done, by whom and from where. It outlives accounts and things.
audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", String(32), nullable=False, index=True),
    Column("account", String(100), nullable=False),
    Column("address", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("thing", String(200), nullable=False),
    Column("outcome", String(64), nullable=False),
)

# The answers to requests that carried a key, for those who ask again because they never heard it.
answered = Table(
    "answered",
    metadata,
    Column("account", String(100), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("at", String(32), nullable=False, index=True),
    Column("status", Integer),
    Column("headers", JSON, nullable=False),
    Column("body", Text, nullable=False),
)
