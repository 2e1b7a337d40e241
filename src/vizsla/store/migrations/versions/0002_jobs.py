"""The queue."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create `job`, `job_change` and `job_need`."""
    op.create_table(
        "job",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("thing", sa.String(16), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("need", sa.JSON, nullable=False),
        sa.Column("retries", sa.Integer, nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("held", sa.JSON, nullable=False),
        sa.Column("stop_asked", sa.Boolean, nullable=False),
        sa.Column("failure", sa.String(16)),
        sa.Column("error", sa.JSON),
    )
    op.create_index("ix_job_thing", "job", ["thing"])
    op.create_index("ix_job_state", "job", ["state"])
    op.create_table(
        "job_change",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.String(16), sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
    )
    op.create_index("ix_job_change_job_id", "job_change", ["job_id"])
    op.create_table(
        "job_need",
        sa.Column("job_id", sa.String(16), sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("needed_id", sa.String(16), sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("ix_job_need_needed_id", "job_need", ["needed_id"])
