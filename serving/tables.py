"""The registry's tables. They use only what SQLite and PostgreSQL both have; the triggers are in `migrations/triggers.py`.

A change here needs a migration (`migrations/versions/`) and the new `REVISION`; a test holds the two together.
Knows nothing of files, locks or what the rows mean. Next: `database.py`, which opens them.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator

from serving.lifecycle import State
from serving.records import RolloutStatus, SlotState

REVISION = "0005"
"""What a registry must be at for this code to use it: the newest file in `migrations/versions/`."""

metadata = MetaData()


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, kept as naive UTC: SQLite drops the zone, and equal lengths keep text order equal to time order."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def _states(kind: type[State] | type[SlotState] | type[RolloutStatus], name: str) -> Enum:
    """A closed set, kept as text. The type refuses other words on the way in and out, so that a new state needs no new column."""
    values = [each.value for each in kind]
    return Enum(kind, name=name, native_enum=False, create_constraint=False, length=32, values_callable=lambda _: values)


# One row; grows by one whenever the champion of any public name changes.
generation = Table("generation", metadata, Column("value", Integer, nullable=False))

releases = Table(
    "releases",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("public_name", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", _states(State, "release_state"), nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("model_dir", Text, nullable=False),
    Column("evidence_digest", String(64)),
    Column("report_path", Text),
    Column("judged_against", String(80)),
    Column("recipe_name", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("serving", JSON, nullable=False),
    UniqueConstraint("public_name", "number"),
)
# The database itself refuses a second champion and a second canary, whatever the code above it does.
for _name, _state in (("one_champion", State.LIVE), ("one_canary", State.CANARY)):
    _only = text(f"state = '{_state.value}'")
    Index(_name, releases.c.public_name, unique=True, sqlite_where=_only, postgresql_where=_only)

transitions = Table(
    "transitions",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("release_id", ForeignKey("releases.id"), nullable=False, index=True),
    Column("from_state", _states(State, "from_state")),
    Column("to_state", _states(State, "to_state"), nullable=False),
    Column("actor", Text, CheckConstraint("length(actor) > 0", name="somebody"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence_digest", String(64)),
    Column("at", UtcTime, nullable=False),
    Column("previous_sha256", String(64), nullable=False, unique=True),
    Column("sha256", String(64), nullable=False, unique=True),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(40), nullable=False),
    Column("subject", String(120), nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence_digest", String(64)),
    Column("facts", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("previous_sha256", String(64), nullable=False, unique=True),
    Column("sha256", String(64), nullable=False, unique=True),
)
outlets = Table(
    "outlets",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("told", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcTime, nullable=False),
)
runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("recipe_name", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("hostname", Text, nullable=False),
    Column("boot_id", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", String(32), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("beat_at", UtcTime, nullable=False),
    Column("status", String(16), nullable=False),
    Column("ended_at", UtcTime),
)
_under_way = text("ended_at IS NULL")
Index("one_run", runs.c.recipe_name, unique=True, sqlite_where=_under_way, postgresql_where=_under_way)

slot_leases = Table(
    "slot_leases",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("release_id", ForeignKey("releases.id"), nullable=False, index=True),
    Column("seconds", Float, nullable=False),
    Column("until", UtcTime, nullable=False),
)
rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("public_name", String(63), nullable=False),
    Column("release_id", ForeignKey("releases.id"), nullable=False),
    Column("champion_id", ForeignKey("releases.id"), nullable=False),
    Column("status", _states(RolloutStatus, "rollout_status"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("share", Float, nullable=False),
    Column("lease_until", UtcTime, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("errors", Integer, nullable=False),
    Column("outcome", String(32)),
    Column("reason", Text, nullable=False),
    Column("verdicts", JSON, nullable=False),
    Column("baseline", JSON),
    Column("actor", Text, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("step_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
)
_open = text("ended_at IS NULL")
Index("one_rollout", rollouts.c.public_name, unique=True, sqlite_where=_open, postgresql_where=_open)

tallies = Table(
    "tallies",
    metadata,
    Column("worker", String(40), primary_key=True),
    Column("release_id", ForeignKey("releases.id"), primary_key=True),
    Column("counts", JSON, nullable=False),
    Column("at", UtcTime, nullable=False),
)
shadows = Table(
    "shadows",
    metadata,
    Column("public_name", String(63), primary_key=True),
    Column("release_id", ForeignKey("releases.id"), nullable=False),
    Column("until", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
)
slots = Table(
    "slots",
    metadata,
    Column("release_id", ForeignKey("releases.id"), primary_key=True),
    Column("state", _states(SlotState, "slot_state"), nullable=False),
    Column("base_url", Text),
    Column("served_name", Text, nullable=False),
    Column("pid", Integer),
    Column("restarts", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)
server = Table(
    "server",
    metadata,
    Column("boot_id", String(32), primary_key=True),
    Column("hostname", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("beat_at", UtcTime, nullable=False),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", Text, nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("revoked_at", UtcTime),
    Column("expires_at", UtcTime),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("max_concurrent", Integer),
)
