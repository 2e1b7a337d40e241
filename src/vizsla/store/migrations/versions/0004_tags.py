"""Tags."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create `tag` and `tag_stamp`."""
    op.create_table(
        "tag",
        sa.Column("entry_id", sa.String(16), sa.ForeignKey("entry.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("folded", sa.String(120), primary_key=True),
        sa.Column("tag", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
    )
    op.create_index("ix_tag_kind_folded", "tag", ["kind", "folded", "entry_id", "tag"])
    op.create_table("tag_stamp", sa.Column("stamp", sa.String(32), primary_key=True))
