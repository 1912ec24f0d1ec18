"""Rollouts by steps: canaries, what each worker has counted, shadows; the history becomes a chain of hashes; keys have limits."""

import sqlalchemy as sa
from alembic import op

from serving.history import START, Line, sha256_of
from serving.migrations.triggers import add_triggers, drop_triggers

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Add the new tables and link the steps that are there."""
    canary, not_ended = sa.text("state = 'canary'"), sa.text("ended_at IS NULL")
    op.create_index("one_canary", "releases", ["public_name"], unique=True, sqlite_where=canary, postgresql_where=canary)
    _rollouts()
    op.create_index("one_rollout", "rollouts", ["public_name"], unique=True, sqlite_where=not_ended, postgresql_where=not_ended)
    _beside_rollouts()
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime()))
    for limit in ("requests_per_minute", "tokens_per_minute", "max_concurrent"):
        op.add_column("api_keys", sa.Column(limit, sa.Integer()))
    drop_triggers(op.get_bind())
    with op.batch_alter_table("transitions") as table:
        table.add_column(sa.Column("previous_sha256", sa.String(64)))
        table.add_column(sa.Column("sha256", sa.String(64)))
    _link()
    # SQLite makes the table anew, and would forget the check that reflection does not see.
    with op.batch_alter_table("transitions", table_args=(sa.CheckConstraint("length(actor) > 0", name="somebody"),)) as table:
        for column in ("previous_sha256", "sha256"):
            table.alter_column(column, existing_type=sa.String(64), nullable=False)
            table.create_unique_constraint(f"transitions_{column}_key", [column])
    add_triggers(op.get_bind())


def _link() -> None:
    """Give each step, oldest first, its hash and that of the one before."""
    connection, previous = op.get_bind(), START
    names = ("seq", "release_id", "from_state", "to_state", "actor", "reason", "evidence_digest")
    steps = sa.table("transitions", *(sa.column(name) for name in (*names, "previous_sha256", "sha256")), sa.column("at", sa.DateTime()))
    for row in connection.execute(sa.select(steps).order_by(steps.c.seq)).mappings().all():
        line = Line(**{name: row[name] for name in (*names, "at")}, previous_sha256=previous)
        linked = {"previous_sha256": previous, "sha256": sha256_of(line)}
        connection.execute(sa.update(steps).where(steps.c.seq == row["seq"]).values(linked))
        previous = linked["sha256"]


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("public_name", sa.String(63), nullable=False),
        sa.Column("release_id", sa.String(80), sa.ForeignKey("releases.id"), nullable=False),
        sa.Column("champion_id", sa.String(80), sa.ForeignKey("releases.id"), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("lease_until", sa.DateTime(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(32)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("verdicts", sa.JSON(), nullable=False),
        sa.Column("baseline", sa.JSON()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("step_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
    )


def _beside_rollouts() -> None:
    op.create_table(
        "tallies",
        sa.Column("worker", sa.String(40), primary_key=True),
        sa.Column("release_id", sa.String(80), sa.ForeignKey("releases.id"), primary_key=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "shadows",
        sa.Column("public_name", sa.String(63), primary_key=True),
        sa.Column("release_id", sa.String(80), sa.ForeignKey("releases.id"), nullable=False),
        sa.Column("until", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
    )
