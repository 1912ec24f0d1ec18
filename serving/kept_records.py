"""Reads back what `keeping.py` wrote: each kept conversation with its answer, what shadows answered, and what its caller said of it.

Answers are read as a stream; only what was said of them is held in memory. A line that a kill cut in half is passed over and counted.
Knows nothing of what becomes of them. Next: `flows/collect_drafts.py`.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROLES = frozenset({"system", "user", "assistant"})

Turn = Mapping[str, str]


@dataclass(frozen=True)
class Exchange:
    """One kept answer. `shadows` are answers of other releases to the same request; the last feedback counts."""

    request_id: str
    key_id: str
    release: str
    messages: tuple[Turn, ...]
    answer: str
    shadows: tuple[tuple[str, str], ...] = ()
    rating: str | None = None
    comment: str = ""
    correction: str = ""


@dataclass
class KeptTraffic:
    """The kept answers of one public name; `torn` and `no_conversation` are complete once they have been iterated."""

    folder: Path
    public_name: str
    torn: int = 0
    no_conversation: int = 0
    _shadows: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    _said: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Exchange]:
        self.torn = self.no_conversation = 0
        for record in self._records():
            self._note(record)
        self.torn = 0  # they are counted on the second way through
        for record in self._records():
            if record.get("kind") == "answer" and self._is_ours(record) and (found := self._exchange(record)) is not None:
                yield found

    def _records(self) -> Iterator[dict[str, Any]]:
        for segment in sorted(path for path in self.folder.glob("*.jsonl") if path.stem.isdigit()):
            try:
                with segment.open(encoding="utf-8", errors="replace") as lines:
                    yield from filter(None, map(self._read, lines))
            except FileNotFoundError:  # the gateway makes room meanwhile
                continue

    def _read(self, line: str) -> dict[str, Any] | None:
        try:
            record = json.loads(line)
            return record if isinstance(record["request_id"], str) else None
        except (ValueError, KeyError, TypeError):
            self.torn += 1
            return None

    def _note(self, record: dict[str, Any]) -> None:
        request_id = record["request_id"]
        if record.get("kind") == "shadow" and self._is_ours(record):
            self._shadows[request_id].append((str(record["release"]), str(record.get("answer", ""))))
        elif record.get("kind") == "feedback":
            said = {name: record[name] for name in ("rating", "comment", "correction") if record.get(name)}
            self._said[request_id] = self._said.get(request_id, {}) | said

    def _is_ours(self, record: dict[str, Any]) -> bool:
        return str(record.get("release", "")).rpartition("-")[0] == self.public_name

    def _exchange(self, record: dict[str, Any]) -> Exchange | None:
        messages, answer = _turns(record.get("messages", ())), str(record.get("answer", ""))
        if not messages or messages[-1]["role"] != "user" or not answer.strip():
            self.no_conversation += 1
            return None
        request_id = record["request_id"]
        said = self._said.get(request_id, {})
        shadows = tuple(each for each in self._shadows.get(request_id, ()) if each[1].strip())
        return Exchange(request_id, str(record.get("key_id", "")), str(record["release"]), messages, answer, shadows, **said)


def _turns(messages: Sequence[Any]) -> tuple[Turn, ...]:
    """The conversation; none where it holds what a model of text cannot learn from."""
    turns = [{"role": str(each.get("role", "")), "content": str(each.get("content", ""))} for each in messages]
    return tuple(turns) if all(turn["role"] in _ROLES and turn["content"].strip() for turn in turns) else ()
