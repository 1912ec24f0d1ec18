"""Writes down how long each stage and flow took and how it ended, for the metrics. Next: `serving/line_log.py`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evaluation.records import Outcome
from serving.line_log import Ended, Entry, Step, append


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
