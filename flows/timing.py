"""Writes down how long each stage and flow took and how it ended, for the metrics; counts what a command spends in stages.

Next: `serving/line_log.py`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from evaluation.records import Outcome
from serving.line_log import Ended, Entry, Step, append

P = ParamSpec("P")
R = TypeVar("R")


class StageClock:
    """Counts the seconds of stages; of a stage within a stage, only the outer one."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """The block is a stage."""
        began, self._depth = time.monotonic(), self._depth + 1
        try:
            yield
        finally:
            self._depth -= 1
            self.seconds += 0.0 if self._depth else time.monotonic() - began


_clock: ContextVar[StageClock | None] = ContextVar("stages of this command", default=None)


@contextmanager
def stages_counted() -> Iterator[StageClock]:
    """Count what the stages take that run while the block does; the rest of its time is what orchestration costs."""
    clock = StageClock()
    before = _clock.set(clock)
    try:
        yield clock
    finally:
        _clock.reset(before)


def counted(stage: Callable[P, R]) -> Callable[P, R]:
    """`stage`, which counts where stages are counted."""

    @wraps(stage)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        clock = _clock.get()
        if clock is None:
            return stage(*args, **kwargs)
        with clock.running():
            return stage(*args, **kwargs)

    return run


class Timed:
    """What a timed block may add: the gate's verdict."""

    verdict: Outcome | None = None


@contextmanager
def timed(home: Path, public_name: str, step: Step) -> Iterator[Timed]:
    """One entry of the line's log for the block, whether it ends well or not."""
    began, said, outcome = time.monotonic(), Timed(), "failed"
    try:
        yield said
        outcome = "ok"
    finally:
        append(home, _entry(public_name, step, "ok" if outcome == "ok" else "failed", time.monotonic() - began, said.verdict))


def _entry(public_name: str, step: Step, outcome: Ended, seconds: float, verdict: Outcome | None) -> Entry:
    said = None if verdict is None else verdict.value
    return Entry(at=time.time(), public_name=public_name, step=step, outcome=outcome, seconds=seconds, verdict=said)
