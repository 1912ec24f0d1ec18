"""Leases of runs as transactions of the registry, and the heartbeat that keeps one. Next: `run_leases.py`, the rules."""

import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from types import FrameType

from serving import run_leases
from serving.database import Database
from serving.errors import LeaseLost, RegistryError
from serving.heartbeats import Heartbeats
from serving.run_leases import BEAT_S, SILENT_S, Holder, Run
from training.errors import TunegateError

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
# A real signal wakes the main thread from whatever it waits for; SIGINT may be ignored, as it is behind `nohup … &`.
_BREAK_OFF = signal.SIGUSR2


class RunBook:
    """The registry's runs."""

    def __init__(
        self, database: Database, now: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep, beat_s: float = BEAT_S,
    ) -> None:  # fmt: skip
        self._database, self._now, self._pause, self._beat_s = database, now, pause, beat_s
        self._heartbeats = Heartbeats(monotonic)

    def under_way(self) -> tuple[Run, ...]:
        """Runs whose process lives, as far as can be told from here."""
        return tuple(run for run in self._open() if self._lives(run))

    def begin(self, recipe_name: str, requester: str, holder: Holder | None = None) -> Run:
        """Take the lease of a recipe; one whose process is gone is taken over. A run elsewhere that looks silent is watched first.

        Raises:
            RunUnderWay: a live process has it.
        """
        self._watch_the_silent(recipe_name)
        at = self._now()
        run = Run(uuid.uuid4().hex, recipe_name, requester, holder or run_leases.this_process(), at, at)
        with self._database.write() as connection:
            run_leases.begin(connection, run, self._lives)
        return run

    def end(self, run: Run, status: str, reason: str = "") -> None:
        """Give it back: `finished`, `failed`, `stopped` by a person, `terminated` by SIGTERM, or `crashed`."""
        with self._database.write() as connection:
            run_leases.end(connection, run, status, reason, self._now())

    def last_heard(self, name: str) -> str | None:
        """The kind of the last line about this work: `run.started`, `run.crashed` and so on; None where it was never begun."""
        with self._database.read() as connection:
            return run_leases.last_kind(connection, run_leases.subject_of(name))

    def bury_the_dead(self) -> tuple[Run, ...]:
        """Mark runs whose process is gone as crashed; returns them. Call it again and again: silence elsewhere takes time to be seen."""
        dead = tuple(run for run in self._open() if not self._lives(run))
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
        """Hold the lease while the block runs, and note how it ended. A block in the main thread is broken off when the lease is lost.

        Raises:
            RunUnderWay: a live process has it.
            LeaseLost: somebody took this run for dead; nothing is written any more.
        """
        run = self.begin(recipe_name, requester)
        heart = _Heart(self._beat, run, self._beat_s)
        heart.start()
        status, reason = "finished", ""
        try:
            yield run
            heart.check()
        except Exception as error:
            status, reason = "failed", _in_words(error)
            raise
        except BaseException:
            status, reason = ("terminated", "its process was told to end") if heart.told_to_end else ("stopped", "")
            heart.check()
            raise
        finally:
            heart.stop()
            with suppress(RegistryError):  # whoever comes next sees that the process is gone
                self.end(run, status, reason)

    def _note(self, name: str, actor: str, failure: str | None) -> None:
        with suppress(RegistryError), self._database.write() as connection:
            run_leases.note(connection, run_leases.subject_of(name), actor, failure, self._now())

    def _open(self) -> tuple[Run, ...]:
        with self._database.read() as connection:
            return run_leases.under_way(connection)

    def _lives(self, run: Run) -> bool:
        return run_leases.lives(run, run_leases.this_process(), self._heartbeats)

    def _watch_the_silent(self, recipe_name: str) -> None:
        """Until each that would be in the way has beaten, or was silent for long enough."""
        here, now = run_leases.this_process(), self._now()
        doubtful = [run for run in self._open() if run_leases.blocks(run, recipe_name) and run_leases.looks_silent(run, here, now)]
        if doubtful:
            names = ", ".join(sorted(run.holder.hostname for run in doubtful))
            _log.warning("a run on %s has not been heard of: looking whether it still beats, %.0f s at most", names, SILENT_S)
        watched = {run.id for run in doubtful}
        while any(run.id in watched and self._lives(run) and not self._heartbeats.was_heard(run.id) for run in self._open()):
            self._pause(_LOOK_EVERY_S)

    def _beat(self, run: Run) -> bool:
        """Whether the lease is still this run's, as far as the registry can be asked."""
        try:
            with self._database.write() as connection:
                return run_leases.beat(connection, run.id, self._now())
        except RegistryError as error:
            _log.warning("the lease of %s was not renewed: %s", run.recipe_name, error.what)
            return True


def _in_words(error: Exception) -> str:
    """The first line of an error of ours; of others only the kind, since its text may hold anything."""
    return error.what.partition("\n")[0] if isinstance(error, TunegateError) else type(error).__name__


class _Heart:
    """Beats in a thread. When the lease is gone, it breaks off what the main thread does, if the lease is held there.

    `told_to_end`: SIGTERM came meanwhile, as when a machine or a worker is shut down. What it does stays with whoever handles it.
    """

    def __init__(self, beat: Callable[[Run], bool], run: Run, every_s: float) -> None:
        self._beat, self._run, self._every_s = beat, run, every_s
        self._over, self._lost, self._lock = threading.Event(), False, threading.Lock()
        self._in_main, self.told_to_end = threading.current_thread() is threading.main_thread(), False
        self._thread = threading.Thread(target=self._run_on, name=f"lease of {run.recipe_name}", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        if self._in_main:
            self._before, self._at_sigterm = signal.signal(_BREAK_OFF, _break_off), signal.getsignal(signal.SIGTERM)
            if callable(self._at_sigterm):  # without a handler it ends this process, and whoever looks sees that it is gone
                signal.signal(signal.SIGTERM, self._sigterm)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more; nothing is broken off from here on."""
        with self._lock:
            self._over.set()
        if self._in_main:
            signal.signal(_BREAK_OFF, self._before)
            if signal.getsignal(signal.SIGTERM) == self._sigterm:
                signal.signal(signal.SIGTERM, self._at_sigterm)
        self._thread.join()

    def check(self) -> None:
        """Raises LeaseLost when it is."""
        if self._lost:
            raise LeaseLost(
                f"this {self._run.subject} was taken for dead, and its lease was given up",
                why="another run may be at work in the same folders, and two would write over each other",
                do="see `tunegate audit export` for who ended it; look whether this machine stood still or lost the registry; run it again",
            )

    def _sigterm(self, number: int, frame: FrameType | None) -> None:
        self.told_to_end = True
        if callable(self._at_sigterm):
            self._at_sigterm(number, frame)

    def _run_on(self) -> None:
        while not self._over.wait(self._every_s):
            if self._beat(self._run):
                continue
            with self._lock:
                if self._over.is_set():
                    return
                self._lost = True
                _log.error("the lease of %s is gone: this run stops", self._run.recipe_name)
                if self._in_main:
                    signal.pthread_kill(threading.main_thread().ident or 0, _BREAK_OFF)
            return


class _BrokenOff(KeyboardInterrupt):
    """Ends what the main thread does, as Ctrl-C would: event loops and Prefect let it pass."""


def _break_off(number: int, frame: FrameType | None) -> None:
    raise _BrokenOff
