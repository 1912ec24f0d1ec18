"""Rows on disk while it is not yet known which of them stay; memory holds some hundred bytes of each. Next: `gather.py`."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import orjson

from training.data.refine import Kept
from training.data.rows import Place


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row in the spool."""

    source: int
    place: Place
    start: int
    size: int
    question_key: str
    changes: tuple[str, ...]
    weights: tuple[int, int, int]  # characters, tokens, tokens that bear loss
    language: str
    topic: str
    masked: dict[str, int]


class Spool:
    """Rows on disk until it is known which of them stay; the file has no name and is gone with the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the spool
        self._end = 0

    def put(self, source: int, kept: Kept) -> Waiting:
        """Append a row."""
        body = orjson.dumps([*kept.sides, kept.line.decode()])
        start, self._end = self._end, self._end + len(body)
        self._file.write(body)
        weights = (kept.characters, kept.tokens, kept.loss_tokens)
        return Waiting(
            source, kept.place, start, len(body), kept.question_key, kept.changes, weights, kept.language, kept.topic, dict(kept.masked)
        )

    def sides(self, row: Waiting) -> tuple[str, str]:
        """Question and answer of a row."""
        question, answer, _ = self._read(row)
        return question, answer

    def raw(self, row: Waiting) -> str:
        """Question and answer, for a person who looks at what was left out."""
        return orjson.dumps(dict(zip(("question", "answer"), self.sides(row), strict=True))).decode()

    def line(self, row: Waiting) -> bytes:
        """The row as it is to be written."""
        line: str = self._read(row)[2]
        return line.encode()

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()

    def _read(self, row: Waiting) -> Any:
        self._file.seek(row.start)
        return orjson.loads(self._file.read(row.size))
