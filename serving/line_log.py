"""The line's own log: what each stage and flow took and how it ended, one JSON line each, for the metrics and nothing else.

Records on disk say what is finished; this file may be deleted at any time. Whoever ran a stage appends, the server reads what is new.
Next: `surroundings.py`, which reads; `flows/timing.py`, which writes.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_log = logging.getLogger(__name__)

Step = Literal[
    "base", "prepare", "sft", "preference", "reward", "online", "merge", "render", "parity", "judge", "gate", "retrain", "promote"
]
Ended = Literal["ok", "failed"]
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "ERROR"]
STEPS: tuple[Step, ...] = get_args(Step)
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
LOG_NAME = "line.jsonl"
_MOST_BYTES = 8 << 20


class Entry(BaseModel):
    """One stage or flow that has ended at `at` (seconds since 1970). `retrain` and `promote` are whole flows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    public_name: str
    step: Step
    outcome: Ended
    seconds: float = Field(ge=0)
    verdict: Verdict | None = None


def append(home: Path, entry: Entry) -> None:
    """Add a line in one write. A log that cannot be written is no reason to lose a night of training: it is said and passed over."""
    path = home / LOG_NAME
    try:
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            path.replace(path.with_suffix(".jsonl.1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, entry.model_dump_json().encode() + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        _log.warning("%s cannot be written, so the metrics miss a %s: %s", path, entry.step, error)


class LineLog:
    """Reads what was added since the last time."""

    def __init__(self, home: Path) -> None:
        self._path = home / LOG_NAME
        self._offset = 0
        self._inode = 0

    def news(self) -> Iterator[Entry]:
        """The new entries; a line that is not whole yet waits, one that cannot be read is passed over.

        Raises:
            OSError: the file is there and cannot be read.
        """
        try:
            with self._path.open("rb") as log:
                status = os.fstat(log.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                log.seek(self._offset)
                lines = log.read().splitlines(keepends=True)
        except FileNotFoundError:
            return
        for line in lines:
            if not line.endswith(b"\n"):
                return
            self._offset += len(line)
            try:
                yield Entry.model_validate_json(line)
            except ValidationError as error:
                _log.warning("a line of %s cannot be read and does not count: %s", self._path, error.errors()[0]["msg"])
