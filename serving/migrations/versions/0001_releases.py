"""Releases and their history, slots, the server, API keys."""

import sqlalchemy as sa
from alembic import op

from serving.migrations.triggers import add_triggers

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make the first tables."""
    op.execute(sa.insert(op.create_table("generation", sa.Column("value", sa.Integer(), nullable=False))).values(value=0))
    _releases()
    op.create_table(
        "transitions",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("release_id", sa.String(80), sa.ForeignKey("releases.id"), nullable=False),
        sa.Column("from_state", sa.String(32)),
        sa.Column("to_state", sa.String(32), nullable=False),
        sa.Column("actor", sa.Text(), sa.CheckConstraint("length(actor) > 0", name="somebody"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence_digest", sa.String(64)),
        sa.Column("at", sa.DateTime(), nullable=False),
    )
    op.create_index("ix_transitions_release_id", "transitions", ["release_id"])
    add_triggers(op.get_bind())
    _what_runs()
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("revoked_at", sa.DateTime()),
    )


def _releases() -> None:
    op.create_table(
        "releases",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("public_name", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("model_dir", sa.Text(), nullable=False),
        sa.Column("evidence_digest", sa.String(64)),
        sa.Column("report_path", sa.Text()),
        sa.Column("judged_against", sa.String(80)),
        sa.Column("recipe_name", sa.Text(), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("serving", sa.JSON(), nullable=False),
        sa.UniqueConstraint("public_name", "number"),
    )
    live = sa.text("state = 'live'")
    op.create_index("one_champion", "releases", ["public_name"], unique=True, sqlite_where=live, postgresql_where=live)


def _what_runs() -> None:
    op.create_table(
        "slot_leases",
        sa.Column("release_id", sa.String(80), sa.ForeignKey("releases.id"), primary_key=True),
        sa.Column("until", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "slots",
        sa.Column("release_id", sa.String(80), sa.ForeignKey("releases.id"), primary_key=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("port", sa.Integer()),
        sa.Column("pid", sa.Integer()),
        sa.Column("restarts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "server",
        sa.Column("boot_id", sa.String(32), primary_key=True),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("beat_at", sa.DateTime(), nullable=False),
    )
