"""What should run and what does: slot leases, slot states, and the one server that looks after them. SQL on one connection.

Knows nothing of processes. Next: `supervisor.py`, which makes the two agree.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, or_, select, update

from serving.errors import AlreadyServing
from serving.records import ServerInfo, SlotInfo, SlotState
from serving.tables import server, slot_leases, slots

FRESH_S = 5.0


def want(connection: Connection, release_id: str, until: datetime) -> None:
    """Ask for a slot until `until`; an earlier end than one already asked for changes nothing."""
    held = connection.scalar(select(slot_leases.c.until).where(slot_leases.c.release_id == release_id))
    if held is None:
        connection.execute(insert(slot_leases).values(release_id=release_id, until=until))
    elif held < until:
        connection.execute(update(slot_leases).where(slot_leases.c.release_id == release_id).values(until=until))


def unwant(connection: Connection, release_id: str) -> None:
    """Take back what `want` asked for."""
    connection.execute(delete(slot_leases).where(slot_leases.c.release_id == release_id))


def leases(connection: Connection) -> dict[str, datetime]:
    """Release id -> until when its slot is wanted, ended ones included."""
    return {row.release_id: row.until for row in connection.execute(select(slot_leases))}


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


def live_server(connection: Connection, now: datetime) -> ServerInfo | None:
    """The server whose last heartbeat is fresh."""
    row = connection.execute(select(server).where(server.c.beat_at > now - timedelta(seconds=FRESH_S))).mappings().first()
    return None if row is None else ServerInfo.model_validate(dict(row))


def last_server(connection: Connection) -> ServerInfo | None:
    """Whoever was the server last, and has not left, however old its heartbeat is."""
    row = connection.execute(select(server)).mappings().first()
    return None if row is None else ServerInfo.model_validate(dict(row))


def beat(connection: Connection, info: ServerInfo, gone: ServerInfo | None = None) -> None:
    """Be the server, or go on being it. A new server forgets the slots of the one before: its engines ended with it. Those that somebody
    else runs, and that were ready, go on. `gone` was seen not to beat any more, whatever the clocks say.

    Raises:
        AlreadyServing: another one is alive.
    """
    other = live_server(connection, info.beat_at)
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
