"""Leases of runs as transactions of the registry, and the heartbeat that keeps one. Next: `run_leases.py`, the rules."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from serving import run_leases
from serving.database import Database
from serving.errors import RegistryError
from serving.run_leases import BEAT_S, Holder, Run
from training.errors import TunegateError

_log = logging.getLogger(__name__)


class RunBook:
    """The registry's runs."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database, self._now = database, now

    def under_way(self) -> tuple[Run, ...]:
        """Runs whose process lives, as far as can be told from here."""
        with self._database.read() as connection:
            found = run_leases.under_way(connection)
        return tuple(run for run in found if run_leases.lives(run, run_leases.this_process(), self._now()))

    def begin(self, recipe_name: str, requester: str, holder: Holder | None = None) -> Run:
        """Take the lease of a recipe; one whose process is gone is taken over.

        Raises:
            RunUnderWay: a live process has it.
        """
        at = self._now()
        run = Run(uuid.uuid4().hex, recipe_name, requester, holder or run_leases.this_process(), at, at)
        with self._database.write() as connection:
            run_leases.begin(connection, run)
        return run

    def end(self, run: Run, status: str, reason: str = "") -> None:
        """Give it back: `finished`, `failed`, `stopped` or `crashed`."""
        with self._database.write() as connection:
            run_leases.end(connection, run, status, reason, self._now())

    def last_heard(self, name: str) -> str | None:
        """The kind of the last line about this work: `run.started`, `run.crashed` and so on; None where it was never begun."""
        with self._database.read() as connection:
            return run_leases.last_kind(connection, run_leases.subject_of(name))

    def bury_the_dead(self) -> tuple[Run, ...]:
        """Mark runs whose process is gone as crashed; returns them."""
        with self._database.read() as connection:
            found = run_leases.under_way(connection)
        dead = tuple(run for run in found if not run_leases.lives(run, run_leases.this_process(), self._now()))
        for run in dead:
            self.end(run, "crashed", "its process is gone")
        return dead

    @contextmanager
    def noticed(self, name: str, actor: str) -> Iterator[None]:
        """Have people told when the block fails, once for as long as it fails in the same way, and not each time it is done."""
        try:
            yield
        except Exception as error:
            self._note(name, actor, _in_words(error))
            raise
        self._note(name, actor, None)

    @contextmanager
    def held(self, recipe_name: str, requester: str) -> Iterator[Run]:
        """Hold the lease while the block runs, and note how it ended.

        Raises:
            RunUnderWay: a live process has it.
        """
        run, over = self.begin(recipe_name, requester), threading.Event()
        heart = threading.Thread(target=self._beat, args=(run, over), name=f"lease of {recipe_name}", daemon=True)
        heart.start()
        status, reason = "finished", ""
        try:
            yield run
        except Exception as error:
            status, reason = "failed", _in_words(error)
            raise
        except BaseException:
            status, reason = "stopped", ""
            raise
        finally:
            over.set()
            heart.join()
            with suppress(RegistryError):  # whoever comes next sees that the process is gone
                self.end(run, status, reason)

    def _note(self, name: str, actor: str, failure: str | None) -> None:
        with suppress(RegistryError), self._database.write() as connection:
            run_leases.note(connection, run_leases.subject_of(name), actor, failure, self._now())

    def _beat(self, run: Run, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            try:
                with self._database.write() as connection:
                    run_leases.beat(connection, run.id, self._now())
            except RegistryError as error:
                _log.warning("the lease of %s was not renewed: %s", run.recipe_name, error.what)


def _in_words(error: Exception) -> str:
    """The first line of an error of ours; of others only the kind, since its text may hold anything."""
    return error.what.partition("\n")[0] if isinstance(error, TunegateError) else type(error).__name__
