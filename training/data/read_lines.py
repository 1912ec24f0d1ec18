"""Bytes to lines, many at a time, with a bound on the longest one: what is beyond it is counted and never held in memory.

Knows nothing of what a line holds. Next: `read_jsonl.py`, `read_table.py`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class TooLong:
    """Stands for a line of `size` bytes, which is beyond the bound."""

    size: int


Line = bytes | TooLong


def line_blocks(chunks: Iterable[bytes], max_bytes: int, end: bytes = b"\n") -> Iterator[list[Line]]:
    """Lines without their end (a carriage return stays), in blocks. A last line without an end counts; an empty one does not."""
    pending: list[bytes] = []
    held = 0  # bytes of the line that began in an earlier chunk, kept or not
    for chunk in chunks:
        *lines, rest = chunk.split(end)
        if lines:
            block = _bounded(lines, len(chunk), max_bytes)
            if held:
                block[0] = _joined([*pending, lines[0]], held + len(lines[0]), max_bytes)
                pending, held = [], 0
            yield block
        if rest:
            held += len(rest)
            pending = [*pending, rest] if held <= max_bytes else []
    if held:
        yield [_joined(pending, held, max_bytes)]


def _joined(pieces: list[bytes], size: int, max_bytes: int) -> Line:
    return TooLong(size) if size > max_bytes else b"".join(pieces)


def _bounded(lines: list[bytes], chunk_bytes: int, max_bytes: int) -> list[Line]:
    if chunk_bytes <= max_bytes:
        return [*lines]
    return [TooLong(len(line)) if len(line) > max_bytes else line for line in lines]
