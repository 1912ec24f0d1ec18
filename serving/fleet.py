"""What should run and what does: slot leases, slot states, and the one server that looks after them. SQL on one connection.

Knows nothing of processes. Next: `supervisor.py`, which makes the two agree.
"""

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby

from sqlalchemy import Connection, delete, insert, or_, select

from serving.errors import AlreadyServing
from serving.records import ServerInfo, SlotInfo, SlotLease, SlotState
from serving.tables import server, slot_leases, slots

FRESH_S = 5.0


def want(connection: Connection, release_id: str, seconds: float, until: datetime) -> None:
    """Ask for a slot for so long, which is until `until` by the clock here; what was asked before goes on."""
    connection.execute(insert(slot_leases).values(release_id=release_id, seconds=seconds, until=until))


def unwant(connection: Connection, release_id: str) -> None:
    """Take back everything that `want` asked for."""
    connection.execute(delete(slot_leases).where(slot_leases.c.release_id == release_id))


def forget(connection: Connection, ended: Iterable[SlotLease]) -> None:
    """Strike out wishes that have ended; another one that got the same number since then stays."""
    for each in ended:
        connection.execute(delete(slot_leases).where(slot_leases.c.id == each.id, slot_leases.c.until == each.until))


def leases(connection: Connection) -> dict[str, tuple[SlotLease, ...]]:
    """Release id -> the wishes for its slot."""
    rows = connection.execute(select(slot_leases).order_by(slot_leases.c.release_id, slot_leases.c.id)).all()
    return {
        release_id: tuple(SlotLease(id=row.id, seconds=row.seconds, until=row.until) for row in asked)
        for release_id, asked in groupby(rows, lambda row: str(row.release_id))
    }


def slot_rows(connection: Connection) -> tuple[SlotInfo, ...]:
    """Every slot the server has spoken of, by release id."""
    rows = connection.execute(select(slots).order_by(slots.c.release_id)).mappings()
    return tuple(SlotInfo.model_validate(dict(row)) for row in rows)


def set_slot(connection: Connection, info: SlotInfo) -> None:
    """Put the slot's row in place of the one before."""
    drop_slot(connection, info.release_id)
    connection.execute(insert(slots).values(info.model_dump()))


def drop_slot(connection: Connection, release_id: str) -> None:
    """Forget one slot."""
    connection.execute(delete(slots).where(slots.c.release_id == release_id))


def last_server(connection: Connection) -> ServerInfo | None:
    """Whoever was the server last, and has not left, however old its heartbeat is."""
    row = connection.execute(select(server)).mappings().first()
    return None if row is None else ServerInfo.model_validate(dict(row))


def beat(connection: Connection, info: ServerInfo, gone: ServerInfo | None = None) -> None:
    """Be the server, or go on being it. A new server forgets the slots of the one before: its engines ended with it. Those that somebody
    else runs, and that were ready, go on. `gone` was seen not to beat any more; no clock is asked.

    Raises:
        AlreadyServing: another one has not left, or has beaten since.
    """
    other = last_server(connection)
    if other is not None and other.boot_id != info.boot_id and other != gone:
        raise already_serving(other)
    known = connection.scalar(select(server.c.boot_id).where(server.c.boot_id == info.boot_id))
    if known is None:
        connection.execute(delete(slots).where(or_(slots.c.pid.is_not(None), slots.c.state != SlotState.READY)))
    connection.execute(delete(server))
    connection.execute(insert(server).values(info.model_dump()))


def already_serving(other: ServerInfo) -> AlreadyServing:
    """Two servers would start every release twice."""
    return AlreadyServing(
        f"a server already looks after this registry: process {other.pid} on {other.hostname}, gateway at {other.host}:{other.port}",
        why="two servers would start every release twice",
        do=f"use that one, or stop it (kill {other.pid}); a dead one is forgotten after {FRESH_S:.0f} s",
    )


def leave(connection: Connection, boot_id: str) -> None:
    """Stop being the server, so that the next one need not wait."""
    connection.execute(delete(server).where(server.c.boot_id == boot_id))
