"""The audit log with requests and signatures, who has been told how far, and the runs that are under way."""

import sqlalchemy as sa
from alembic import op

from serving.migrations.triggers import add_triggers

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    """Add the new tables. Steps taken before are in the history alone, which has hashes of its own."""
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(120), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence_digest", sa.String(64)),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("previous_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    )
    op.create_index("ix_audit_log_subject", "audit_log", ["subject"])
    add_triggers(op.get_bind(), "audit_log")
    op.create_table(
        "outlets",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
    )
    _runs()


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("recipe_name", sa.Text(), nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process_started", sa.String(32), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("beat_at", sa.DateTime(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
    )
    not_ended = sa.text("ended_at IS NULL")
    op.create_index("one_run", "runs", ["recipe_name"], unique=True, sqlite_where=not_ended, postgresql_where=not_ended)
