"""Tells each outlet what the audit log has to say, in order, at least once, and never in anybody's way.

How far an outlet has been told is a row of the registry, so nothing is lost by a crash, and whoever tells next goes on from there. An
outlet that fails is tried again with growing pauses; after its last attempt the event is given up, and the next one is told.
Next: `outlets.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from serving.audit_log import AuditLine, lines
from serving.database import Database
from serving.errors import RegistryError
from serving.notices import Notice, notice_of
from serving.outlets import NotTold, Outlet
from serving.tables import audit_log, outlets

_log = logging.getLogger(__name__)

# An outlet that is new is told what is still news.
_NEWS = timedelta(hours=1)
# Longer than any attempt takes: whoever dies while telling leaves the event to the next one.
_CLAIM = timedelta(seconds=180)
_PAUSE_CAP_S = 300.0
_LOOK_EVERY_S = 1.0
_AT_A_TIME = 100


class Notifier:
    """Brings outlets up to date. Several may run side by side; an event is told by one of them."""

    def __init__(self, database: Database, now: Callable[[], datetime], attempts: int) -> None:
        self._database, self._now, self._attempts = database, now, attempts

    def bring_up_to_date(self, outlet: Outlet) -> int:
        """Tell an outlet all that is due; returns how many events it took. Ends at the first attempt that fails."""
        told = 0
        while (claimed := self._claim(outlet)) is not None:
            line, attempts = claimed
            notice = notice_of(line)
            if notice is not None and not self._told(outlet, notice, line, attempts):
                break
            told += notice is not None
        return told

    async def run(self, outlet: Outlet) -> None:
        """Do so for ever. Only this outlet waits when it is slow."""
        while True:
            try:
                await asyncio.to_thread(self.bring_up_to_date, outlet)
            except RegistryError as error:
                _log.warning("%s is told later: %s", outlet.name, error.what)
            await asyncio.sleep(_LOOK_EVERY_S)

    def _told(self, outlet: Outlet, notice: Notice, line: AuditLine, attempts: int) -> bool:
        try:
            outlet.tell(notice, line)
        except NotTold as error:
            last = attempts + 1 >= self._attempts
            _log.warning("event %s of %s: %s%s", notice.event, notice.subject, error, "; given up" if last else "; tried again later")
            self._note(outlet, line.seq if last else line.seq - 1, 0 if last else attempts + 1)
            return False
        self._note(outlet, line.seq, 0)
        return True

    def _claim(self, outlet: Outlet) -> tuple[AuditLine, int] | None:
        """The next line for this outlet and the attempts made at it, kept from others for a while; None when nothing is due."""
        with self._database.write() as connection:
            row = _row(connection, outlet.name, self._now())
            if row.due_at > self._now():
                return None
            found = lines(connection, after=row.told, most=_AT_A_TIME)
            line = next((each for each in found if notice_of(each) is not None), found[-1] if found else None)
            if line is not None:
                told = update(outlets).where(outlets.c.name == outlet.name)
                silent = notice_of(line) is None
                connection.execute(told.values(told=line.seq) if silent else told.values(due_at=self._now() + _CLAIM))
            return None if line is None else (line, row.attempts)

    def _note(self, outlet: Outlet, told: int, attempts: int) -> None:
        pause = timedelta(seconds=min(2.0 ** (attempts - 1), _PAUSE_CAP_S) if attempts else 0.0)
        with self._database.write() as connection:
            values = {"told": told, "attempts": attempts, "due_at": self._now() + pause}
            connection.execute(update(outlets).where(outlets.c.name == outlet.name).values(values))


def watch_over(notifier: Notifier, found: Sequence[Outlet]) -> list[asyncio.Task[None]]:
    """A task for each outlet."""
    return [asyncio.create_task(notifier.run(each), name=f"telling {each.name}") for each in found]


def _row(connection: Connection, name: str, now: datetime) -> Row[Any]:
    query = select(outlets).where(outlets.c.name == name)
    row = connection.execute(query).first()
    if row is None:
        old = connection.scalar(select(func.max(audit_log.c.seq)).where(audit_log.c.at < now - _NEWS)) or 0
        connection.execute(insert(outlets).values(name=name, told=old, attempts=0, due_at=now))
        return connection.execute(query).one()
    return row
