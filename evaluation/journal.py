"""The answers of one evaluation on disk while it runs, so that what ends it loses nothing that was answered.

Every entry is a line of its own with a checksum, handed to the system at once (a killed process loses none) and synced to the disk
batch by batch (a power cut loses one batch). The first line says which model, suite and settings the answers belong to; a
file of other terms is put aside as `answers.stale.jsonl`. A line that is torn or altered counts as never written: it is asked
again. Knows nothing of HTTP or scores. Next: `questioning.py`, which fills it.
"""

import asyncio
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

from evaluation.client import ChatAnswer
from evaluation.records import TaskScore
from training.atomic import write_text

ANSWERS_NAME = "answers.jsonl"
STALE_NAME = "answers.stale.jsonl"
Key = tuple[str, int]  # prompt id, repetition
_ANSWER = TypeAdapter(ChatAnswer)
_LOGPROB = TypeAdapter(tuple[float, int])
_TASK = TypeAdapter(TaskScore)


class Journal:
    """What is known already, and where the next answers go. Make it with `open_journal`."""

    def __init__(self, log: TextIO, entries: list[dict[str, Any]], batch: int) -> None:
        self._log, self._batch, self._unsynced = log, batch, 0
        self.answers: dict[Key, ChatAnswer] = {}
        self.logprobs: dict[str, tuple[float, int]] = {}
        self.tasks: dict[str, TaskScore] = {}
        for entry in entries:
            self._take(entry)

    async def add_answer(self, key: Key, answer: ChatAnswer) -> None:
        """Keep an answer."""
        self.answers[key] = answer
        await self._append({"prompt_id": key[0], "repetition": key[1], "answer": _ANSWER.dump_python(answer)})

    async def add_logprob(self, prompt_id: str, logprob: tuple[float, int]) -> None:
        """Keep the log-probability of a prompt's reference, and its tokens."""
        self.logprobs[prompt_id] = logprob
        await self._append({"prompt_id": prompt_id, "logprob": logprob})

    def add_task(self, score: TaskScore) -> None:
        """Keep the result of a task."""
        self.tasks[score.task] = score
        self._write({"task": _TASK.dump_python(score, mode="json")})
        os.fsync(self._log.fileno())

    async def _append(self, entry: dict[str, Any]) -> None:
        self._write(entry)
        self._unsynced += 1
        if self._unsynced >= self._batch:
            self._unsynced = 0
            await asyncio.to_thread(os.fsync, self._log.fileno())  # beside the loop, whose clock times the answers

    def _write(self, entry: dict[str, Any]) -> None:
        self._log.write(_line(entry))
        self._log.flush()

    def _take(self, entry: dict[str, Any]) -> None:
        try:
            if "answer" in entry:
                self.answers[str(entry["prompt_id"]), int(entry["repetition"])] = _ANSWER.validate_python(entry["answer"])
            elif "logprob" in entry:
                self.logprobs[str(entry["prompt_id"])] = _LOGPROB.validate_python(entry["logprob"])
            elif "task" in entry:
                score = _TASK.validate_python(entry["task"])
                self.tasks[score.task] = score
        except (KeyError, ValidationError):
            return  # of an older version of this file: asked again


@contextmanager
def open_journal(path: Path, terms: str, *, batch: int) -> Iterator[Journal]:
    """Go on with the journal of an earlier run on the same terms, or begin one; synced when it is closed."""
    header, *entries = _entries(path) or [{}]
    if header != {"terms": terms}:
        if path.exists():
            path.replace(path.with_name(STALE_NAME))
        entries = []
    write_text(path, "".join(_line(entry) for entry in ({"terms": terms}, *entries)))
    with path.open("a", encoding="utf-8") as log:
        try:
            yield Journal(log, entries, batch)
        finally:
            log.flush()
            os.fsync(log.fileno())


def _line(entry: dict[str, Any]) -> str:
    return json.dumps({"entry": entry, "crc32": _checksum(entry)}, ensure_ascii=False) + "\n"


def _checksum(entry: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode())


def _entries(path: Path) -> list[dict[str, Any]]:
    """Every whole, unaltered entry in order; nothing where the first line, which says what they are, is not whole."""
    found: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    for number, line in enumerate(lines):
        entry = _verified(line)
        if entry is not None:
            found.append(entry)
        elif number == 0:
            break
    return found


def _verified(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
        entry = value["entry"]
    except (ValueError, KeyError, TypeError):
        return None
    return entry if isinstance(entry, dict) and value.get("crc32") == _checksum(entry) else None
