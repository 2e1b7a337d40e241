"""Entries and their lineage."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create `entry` and `link`."""
    op.create_table(
        "entry",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.UniqueConstraint("kind", "name"),
    )
    op.create_table(
        "link",
        sa.Column("child_id", sa.String(16), sa.ForeignKey("entry.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("parent_id", sa.String(16), sa.ForeignKey("entry.id"), primary_key=True),
    )
    op.create_index("ix_link_parent_id", "link", ["parent_id"])
