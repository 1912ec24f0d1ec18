"""A wish for a slot says for how long, so that nobody's clock decides when it ends; a release may be wished for more than once."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0005", "0004"


def upgrade() -> None:
    """Make the table anew: what it holds is only what is wanted at the moment, and during an upgrade nobody wants anything."""
    op.drop_table("slot_leases")
    op.create_table(
        "slot_leases",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("release_id", sa.String(80), sa.ForeignKey("releases.id"), nullable=False, index=True),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("until", sa.DateTime(), nullable=False),
    )
