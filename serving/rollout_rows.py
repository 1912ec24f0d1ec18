"""Rollouts, what the gateway's workers counted, and shadows: SQL on one connection inside somebody else's transaction.

Knows nothing of when a step is over. Next: `rollout_book.py`, which makes transactions of these.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from serving.errors import TransitionRefused
from serving.records import Canary, Rollout, RolloutStatus, Shadow, Tally
from serving.tables import rollouts, shadows, tallies

CANARY_STATUSES = (RolloutStatus.RUNNING, RolloutStatus.PAUSED)


def open_rollouts(connection: Connection) -> tuple[Rollout, ...]:
    """Those that have not ended, by public name."""
    rows = connection.execute(select(rollouts).where(rollouts.c.ended_at.is_(None)).order_by(rollouts.c.public_name))
    return tuple(Rollout.model_validate(dict(row)) for row in rows.mappings())


def open_rollout(connection: Connection, public_name: str) -> Rollout | None:
    """The one of this name that has not ended."""
    return next((each for each in open_rollouts(connection) if each.public_name == public_name), None)


def newest(connection: Connection, release_id: str) -> Rollout | None:
    """The last one of this release, ended or not."""
    query = select(rollouts).where(rollouts.c.release_id == release_id).order_by(rollouts.c.id.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else Rollout.model_validate(dict(row))


def endings(connection: Connection) -> dict[tuple[str, RolloutStatus, str], int]:
    """How many ended, by public name, end and outcome; `none` for one that was never looked at."""
    outcome = func.coalesce(rollouts.c.outcome, "none")
    query = select(rollouts.c.public_name, rollouts.c.status, outcome, func.count()).where(rollouts.c.ended_at.is_not(None))
    counted = connection.execute(query.group_by(rollouts.c.public_name, rollouts.c.status, outcome))
    return {(public_name, RolloutStatus(status), said): count for public_name, status, said, count in counted}


def begin(connection: Connection, values: Mapping[str, Any]) -> None:
    """Add a rollout; what was counted for one before it is forgotten."""
    connection.execute(delete(tallies))
    connection.execute(insert(rollouts).values(**values))


def change(connection: Connection, rollout: Rollout, values: Mapping[str, Any]) -> None:
    """Change a rollout that nobody has changed since it was read.

    Raises:
        TransitionRefused: somebody has, or it has ended.
    """
    same = update(rollouts).where(rollouts.c.id == rollout.id, rollouts.c.fence == rollout.fence, rollouts.c.ended_at.is_(None))
    if connection.execute(same.values(fence=rollout.fence + 1, **values)).rowcount != 1:
        raise TransitionRefused(
            f"the rollout of {rollout.release_id} was changed a moment ago",
            why="two decisions about one rollout could undo each other",
            do=f"look at it again: tunegate rollout status {rollout.public_name}",
        )


def canaries(running: tuple[Rollout, ...]) -> dict[str, Canary]:
    """Public name -> the share that its canary has."""
    return {
        each.public_name: Canary(release_id=each.release_id, share=each.share, lease_until=each.lease_until)
        for each in running
        if each.status in CANARY_STATUSES
    }


def count(connection: Connection, worker: str, release_id: str, counts: Mapping[str, Any], at: datetime) -> None:
    """Put a worker's newest counts of a release in place of those before."""
    connection.execute(delete(tallies).where(tallies.c.worker == worker, tallies.c.release_id == release_id))
    connection.execute(insert(tallies).values(worker=worker, release_id=release_id, counts=dict(counts), at=at))


def counted(connection: Connection) -> tuple[Tally, ...]:
    """What every worker said last of every release."""
    rows = connection.execute(select(tallies).order_by(tallies.c.worker, tallies.c.release_id)).mappings()
    return tuple(Tally.model_validate(dict(row)) for row in rows)


def shadow(connection: Connection, public_name: str, found: Shadow | None, actor: str) -> None:
    """Ask this release what the champion is asked; None: ask nobody."""
    connection.execute(delete(shadows).where(shadows.c.public_name == public_name))
    if found is not None:
        connection.execute(insert(shadows).values(public_name=public_name, actor=actor, **found.model_dump()))


def shadows_now(connection: Connection) -> dict[str, Shadow]:
    """Public name -> its shadow, those whose time is over included."""
    rows = connection.execute(select(shadows).order_by(shadows.c.public_name))
    return {row.public_name: Shadow(release_id=row.release_id, until=row.until) for row in rows}
