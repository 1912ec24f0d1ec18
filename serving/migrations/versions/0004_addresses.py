"""A slot's engine may be one that somebody else runs: it has an address and a name of its own instead of a port of this machine."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    """Make the table anew: what it holds is only what runs at the moment, and during an upgrade nothing does."""
    op.drop_table("slots")
    op.create_table(
        "slots",
        sa.Column("release_id", sa.String(80), sa.ForeignKey("releases.id"), primary_key=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("base_url", sa.Text()),
        sa.Column("served_name", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer()),
        sa.Column("restarts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
    )
