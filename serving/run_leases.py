"""Which runs are under way: one for each recipe, held by a process that is known to live.

Beside runs of recipes there is other work that must not go on twice, such as a promotion: its name holds a blank and says what it is.
On its own machine a run lives while its process does: the same boot, process id and start, so no clock is asked and a killed run makes
room at once. On another machine it lives while its heartbeat is seen to change. SQL on one connection; next: `run_book.py`.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from serving import fleet
from serving.audit_log import Entry, append
from serving.errors import RunUnderWay
from serving.heartbeats import Heartbeats
from serving.lifecycle import State
from serving.machine import boot_id
from serving.tables import audit_log, releases, runs

EVERYTHING = "*"
"""The name under which something holds off every run, as pruning does."""
BEAT_S = 5.0
SILENT_S = 60.0
"""A run on another machine is taken for dead when nobody has seen it beat for so long."""
_OLD_NEWS = timedelta(days=1)
_ENDS = ("run.finished", "run.failed", "run.crashed")


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease."""

    hostname: str
    boot_id: str
    pid: int
    process_started: str

    def lives_here(self) -> bool:
        """Whether exactly this process runs on this machine."""
        return started(self.pid) == self.process_started


@dataclass(frozen=True)
class Run:
    """A run as the registry knows it."""

    id: str
    recipe_name: str
    requester: str
    holder: Holder
    started_at: datetime
    beat_at: datetime

    @property
    def subject(self) -> str:
        """What people are told it is."""
        return subject_of(self.recipe_name)


def promotion_of(release_id: str) -> str:
    """The name under which a release is promoted: by one process at a time."""
    return f"promotion of {release_id}"


def subject_of(name: str) -> str:
    """`run of demo`; work of another kind says itself what it is."""
    return name if " " in name else f"run of {name}"


def this_process() -> Holder:
    """The holder that this process would be."""
    return Holder(socket.gethostname(), boot_id(), os.getpid(), started(os.getpid()) or "")


def started(pid: int) -> str | None:
    """When a process started, in ticks since boot where the kernel tells; None when there is none, or only its remains."""
    import psutil  # 1 MB in each gateway worker, which has the registry but runs nothing

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        stat = Path(f"/proc/{pid}/stat")
        # The name of a process may hold blanks and brackets; the fields after its last bracket do not.
        return (
            stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
            if stat.exists()
            else f"{process.create_time():.2f}"
        )
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None


def lives(run: Run, here: Holder, heartbeats: Heartbeats) -> bool:
    """Whether the run's process can still be at work. One on another machine that is seen for the first time can."""
    if run.holder.hostname != here.hostname:
        return heartbeats.silent_s(run.id, run.beat_at) < SILENT_S
    return run.holder.boot_id == here.boot_id and run.holder.lives_here()


def looks_silent(run: Run, here: Holder, now: datetime) -> bool:
    """Whether, by two machines' clocks, a run elsewhere has not beaten of late: it may be dead, or a clock may be wrong."""
    return run.holder.hostname != here.hostname and abs((now - run.beat_at).total_seconds()) >= SILENT_S


def blocks(other: Run, recipe_name: str) -> bool:
    """Whether a run of `recipe_name` has to wait for that one."""
    return other.recipe_name in (recipe_name, EVERYTHING)


def under_way(connection: Connection) -> tuple[Run, ...]:
    """Runs that have not ended, as far as anybody has said."""
    rows = connection.execute(select(runs).where(runs.c.ended_at.is_(None)).order_by(runs.c.started_at)).mappings()
    return tuple(_run(dict(row)) for row in rows)


def begin(connection: Connection, run: Run, alive: Callable[[Run], bool]) -> None:
    """Take the lease; what is not `alive` makes room.

    Raises:
        RunUnderWay: another live process has it, or holds off every run.
    """
    for other in under_way(connection):
        if not blocks(other, run.recipe_name):
            continue
        if alive(other):
            raise _busy(other)
        end(connection, other, "crashed", "its process is gone", run.started_at)
    holder = run.holder
    row = {"hostname": holder.hostname, "boot_id": holder.boot_id, "pid": holder.pid, "process_started": holder.process_started}
    facts = {"id": run.id, "recipe_name": run.recipe_name, "requester": run.requester, "status": "running"}
    connection.execute(insert(runs).values(**facts, **row, started_at=run.started_at, beat_at=run.beat_at))
    append(connection, _entry("run.started", run, run.started_at, ""))


def beat(connection: Connection, run_id: str, at: datetime) -> bool:
    """Say that the run goes on; False when somebody has ended it."""
    return connection.execute(update(runs).where(runs.c.id == run_id, runs.c.ended_at.is_(None)).values(beat_at=at)).rowcount == 1


def end(connection: Connection, run: Run, status: str, reason: str, at: datetime) -> None:
    """Give the lease back, once. What a crashed run had started for its candidate is not wanted any more."""
    still = update(runs).where(runs.c.id == run.id, runs.c.ended_at.is_(None))
    if connection.execute(still.values(status=status, ended_at=at)).rowcount != 1:
        return
    again = status == "failed" and not is_news(connection, run.subject, reason, at)
    append(connection, _entry("run.failed_again" if again else f"run.{status}", run, at, reason))
    if status == "crashed":
        mine = select(releases.c.id).where(releases.c.recipe_name == run.recipe_name, releases.c.state == State.CANDIDATE)
        for release_id in connection.scalars(mine).all():
            fleet.unwant(connection, release_id)


def note(connection: Connection, subject: str, actor: str, failure: str | None, at: datetime) -> None:
    """Note how work ended that holds no lease and is done so often that only its failures and their end are news."""
    last = last_end(connection, subject)
    if failure is not None and is_news(connection, subject, failure, at):
        append(connection, Entry("run.failed", subject, actor, at, failure))
    elif failure is None and last is not None and last.kind == "run.failed":
        append(connection, Entry("run.finished", subject, actor, at, "works again"))


def is_news(connection: Connection, subject: str, failure: str, at: datetime) -> bool:
    """Whether this failure is another one than the last time, or that was more than a day ago."""
    last = last_end(connection, subject)
    return last is None or last.kind != "run.failed" or last.reason != failure or abs(at - last.at) > _OLD_NEWS


def last_end(connection: Connection, subject: str) -> Row[Any] | None:
    """The line of the audit log that says how this work ended last; a failure told before is not said again."""
    mine = select(audit_log.c.kind, audit_log.c.reason, audit_log.c.at).where(audit_log.c.subject == subject, audit_log.c.kind.in_(_ENDS))
    return connection.execute(mine.order_by(audit_log.c.seq.desc()).limit(1)).first()


def last_kind(connection: Connection, subject: str) -> str | None:
    """The last that was heard of this work: `run.started`, or how it ended."""
    mine = select(audit_log.c.kind).where(audit_log.c.subject == subject, audit_log.c.kind.startswith("run."))
    return connection.scalar(mine.order_by(audit_log.c.seq.desc()).limit(1))


def _entry(kind: str, run: Run, at: datetime, reason: str) -> Entry:
    facts = {"run": run.id, "pid": run.holder.pid, "hostname": run.holder.hostname}
    return Entry(kind, run.subject, run.requester, at, reason, facts=facts)


def _busy(other: Run) -> RunUnderWay:
    what = "tunegate prune" if other.recipe_name == EVERYTHING else f"a {other.subject}"
    holder = other.holder
    return RunUnderWay(
        f"{what} is under way: process {holder.pid} on {holder.hostname}, since {other.started_at:%Y-%m-%d %H:%M} UTC",
        why="two at once would write into the same folders",
        do=f"wait for it, or stop it (kill {holder.pid}); the next run goes on where it stopped",
    )


def _run(row: dict[str, Any]) -> Run:
    holder = Holder(row["hostname"], row["boot_id"], row["pid"], row["process_started"])
    return Run(row["id"], row["recipe_name"], row["requester"], holder, row["started_at"], row["beat_at"])
