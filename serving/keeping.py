"""Keeps prompts, answers and what people said of them, for later training and blind review: masked, bounded, off by default.

The gateway only puts records into a bounded queue; a thread masks personal data as data preparation does, and writes JSON lines that
only this user can read. When the thread cannot keep up, records are dropped and counted, never callers held up.
Knows nothing of HTTP. Next: `gateway_witness.py`, which makes the records; `training/data/privacy.py`, which masks.
"""

import json
import logging
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from training.data.privacy import Masker, PrivacySection

_log = logging.getLogger(__name__)

_MOST_WAITING = 512
_MOST_KNOWN = 100_000
_SEGMENT_BYTES = 4 << 20
_SEGMENT_S = 3600.0
_PRUNE_S = 600.0
_CLOSE_S = 10.0

Kind = Literal["answer", "shadow", "feedback"]


@dataclass(frozen=True)
class Kept:
    """One record. `texts` is what a person wrote or a model said, by name; `facts` holds no text of either."""

    kind: Kind
    request_id: str
    key_id: str
    texts: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    roles: Sequence[str] = ()


class Keeper:
    """Writes records below `folder`; the oldest go when there is too much, or when they are too old, also while nothing new is kept."""

    def __init__(self, folder: Path, *, max_bytes: int, max_age_s: float) -> None:
        self._folder, self._max_bytes, self._max_age_s = folder, max_bytes, max_age_s
        self._segment_s, self._prune_s = min(_SEGMENT_S, max_age_s / 4), min(_PRUNE_S, max_age_s / 4)
        self._queue: queue.Queue[Kept | None] = queue.Queue(_MOST_WAITING)
        self._known: OrderedDict[str, str] = OrderedDict()
        self._segment: Path | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> None:
        """Begin, in a thread: learn what is kept already, then write. Called again, it changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
            self._thread.start()

    def start_if_any(self) -> None:
        """Begin where something was kept before: it grows too old whether or not anything is added."""
        if self._folder.is_dir():
            self.start()

    def offer(self, record: Kept) -> None:
        """Keep a record, if there is room for it now."""
        self.start()
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            return
        if record.kind == "answer":
            self._know(record.request_id, record.key_id)

    def key_of(self, request_id: str) -> str | None:
        """The key whose request this was; None when its answer was not kept."""
        return self._known.get(request_id)

    def close(self) -> None:
        """Write what waits, and stop."""
        if self._thread is not None:
            with suppress(queue.Full):
                self._queue.put(None, timeout=_CLOSE_S)
            self._thread.join(_CLOSE_S)

    def _know(self, request_id: str, key_id: str) -> None:
        with self._lock:
            self._known[request_id] = key_id
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._prune()
        for segment in self._segments():
            with segment.open(encoding="utf-8") as lines:
                for line in lines:
                    self._learn(line)

    def _learn(self, line: str) -> None:
        try:
            record = json.loads(line)
        except ValueError:  # the last line of a process that was killed
            return
        if record.get("kind") == "answer":
            self._know(record["request_id"], record["key_id"])

    def _run(self) -> None:
        masker = Masker(PrivacySection())
        self._try(self._open)
        pruned_s = time.monotonic()
        while True:
            with suppress(queue.Empty):
                if (record := self._queue.get(timeout=self._prune_s)) is None:
                    return
                self._try(partial(self._write, masked_line(masker, record)))
            if time.monotonic() - pruned_s >= self._prune_s:
                self._try(self._prune)
                pruned_s = time.monotonic()

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:
            self.dropped += 1
            _log.error("an answer could not be kept: %s", error)

    def _write(self, line: bytes) -> None:
        if self._segment is None or self._is_full(self._segment):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._prune()
            self._segment = self._folder / f"{time.time_ns():020d}.jsonl"
        descriptor = os.open(self._segment, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _is_full(self, segment: Path) -> bool:
        age_s = time.time() - int(segment.stem) / 1e9
        return not segment.exists() or segment.stat().st_size > min(_SEGMENT_BYTES, self._max_bytes // 4) or age_s > self._segment_s

    def _segments(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("*.jsonl") if path.stem.isdigit())

    def _prune(self) -> None:
        """Drop segments whose last record is too old, and the oldest ones until a quarter of the room is free."""
        segments = self._segments()
        oldest_s = time.time() - self._max_age_s
        size = sum(path.stat().st_size for path in segments)
        for path in segments:
            if path.stat().st_mtime < oldest_s or size > self._max_bytes * 3 // 4:
                size -= path.stat().st_size
                path.unlink(missing_ok=True)  # another gateway of this home may have been faster


def masked_line(masker: Masker, record: Kept) -> bytes:
    """The record as one line of JSON, all its texts masked together, so that one value has one placeholder throughout."""
    masked = masker.mask(list(record.texts.values()))
    texts = dict(zip(record.texts, masked.texts, strict=True))
    line = {"kind": record.kind, "request_id": record.request_id, "key_id": record.key_id, "at": round(time.time(), 3), **record.facts}
    if record.roles:
        line["messages"] = [{"role": role, "content": texts.pop(f"message {number}")} for number, role in enumerate(record.roles)]
    return json.dumps({**line, **texts}, ensure_ascii=False).encode() + b"\n"
