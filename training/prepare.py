"""Turns the recipe's rows into tokenised training, validation and preference rows, and counts every row in and out.

Training rows are rendered here, once, with the base model's own template; the trainers only pad. A row is held back for
validation by the hash of its question: adding rows never moves an old one, and the same question is never on both sides.
Rows that are left out lie in `rejected.jsonl` with file, line and reason. Next: `sft.py`.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from training.atomic import sha256_of, write_text
from training.chat import IGNORED, prompt_ids, render
from training.config import DataSection, ModelSection
from training.errors import DataError
from training.formats import BadRow, Message, PreferenceRow, Row, read_preferences, read_rows
from training.progress import Progress, Report
from training.records import BaseModelRecord, DatasetManifest, SourceCount, digest_files, digest_of
from training.tokenizer import load_tokenizer

TRAIN, VALIDATION, PREFERENCES, REJECTED = "train.jsonl", "validation.jsonl", "preference_train.jsonl", "rejected.jsonl"

_LISTED_FAULTS = 20
_DROPPED_QUIETLY = frozenset({"too_long", "duplicate"})  # well-formed rows; every other reason is a fault of the file
_HASH_SPACE = float(1 << 32)

_Tokenise = Callable[[Any], tuple[dict[str, Any], int]]  # a row of `formats` -> what is written of it, its length in tokens


@dataclass
class _Source:
    """What became of one file's rows."""

    path: Path
    format: str
    rows_in: int = 0
    kept: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[tuple[int, str, str]] = field(default_factory=list)

    def count(self) -> SourceCount:
        reasons = Counter(reason for _, reason, _ in self.dropped)
        if self.rows_in != len(self.kept) + reasons.total():
            raise AssertionError(f"{self.path}: {self.rows_in} rows in, {len(self.kept)} kept, {reasons.total()} dropped")
        return SourceCount(
            path=self.path.name,
            sha256=sha256_of(self.path),
            format=self.format,
            rows_in=self.rows_in,
            kept=len(self.kept),
            dropped=dict(sorted(reasons.items())),
        )


def prepare_dataset(model: ModelSection, data: DataSection, base: BaseModelRecord, out: Path, report: Report) -> DatasetManifest:
    """Write the tokenised rows to `out` and return their manifest.

    Raises:
        DataError: files that are missing, empty or malformed, or nothing left to train on; all faults at once.
        ModelError: the tokenizer or its chat template cannot be used.
    """
    started = time.monotonic()
    _require_readable([source.path for source in data.sft] + [source.path for source in data.preferences])
    tokenizer = load_tokenizer(Path(base.folder))
    prepared = _Preparation(tokenizer, model.max_length, data.system_prompt, report)
    rows = [prepared.sft(source.path, read_rows(source.path, source.format), source.format) for source in data.sft]
    pairs = [prepared.preferences(source.path, read_preferences(source.path)) for source in data.preferences]
    _refuse_faults([*rows, *pairs], data.bad_rows)
    train, validation = _split([row for source in rows for row in source.kept], data.validation_fraction)
    kept_pairs = [row for source in pairs for row in source.kept]
    _refuse_nothing(train, validation, kept_pairs, data)
    _write(out, train, validation, kept_pairs, [*rows, *pairs])
    manifest = DatasetManifest(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - started,
        base_digest=base.digest,
        section_digest=digest_of([data.digest, model.max_length]),
        sources=tuple(source.count() for source in [*rows, *pairs]),
        train_rows=len(train),
        validation_rows=len(validation),
        train_tokens=sum(len(row["input_ids"]) for row in train),
        loss_tokens=sum(label != IGNORED for row in train for label in row["labels"]),
        preference_rows=len(kept_pairs),
        files=digest_files(out),
    )
    if manifest.train_rows + manifest.validation_rows + manifest.preference_rows != sum(source.kept for source in manifest.sources):
        raise AssertionError("rows were lost between reading and writing")
    manifest.write(out)
    return manifest


def read_prepared(path: Path, limit: int | None = None) -> list[dict[str, list[int]]]:
    """The first `limit` rows of a prepared file, as lists of token ids."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, limit)]


class _Preparation:
    """Renders rows one by one; remembers what it has seen, over all files, to name exact duplicates."""

    def __init__(self, tokenizer: Any, max_length: int, system_prompt: str | None, report: Report) -> None:
        self.tokenizer, self.max_length, self.system_prompt, self.report = tokenizer, max_length, system_prompt, report
        self.seen: dict[str, str] = {}
        self.done = 0

    def sft(self, path: Path, rows: Iterable[Row | BadRow], row_format: str) -> _Source:
        return self._run(_Source(path, row_format), rows, self._sft_row)

    def preferences(self, path: Path, rows: Iterable[PreferenceRow | BadRow]) -> _Source:
        return self._run(_Source(path, "preferences"), rows, self._pair)

    def _run(self, source: _Source, rows: Iterable[Any], tokenise: _Tokenise) -> _Source:
        for row in rows:
            source.rows_in += 1
            fault = (row.reason, row.detail) if isinstance(row, BadRow) else self._keep(source, row, tokenise)
            if fault:
                source.dropped.append((row.line, *fault))
            self.done += 1
            if self.done % 100 == 0:
                self.report(Progress(self.done, 0, "rows", source.path.name))
        self.report(Progress(self.done, 0, "rows", source.path.name))
        return source

    def _keep(self, source: _Source, row: Any, tokenise: _Tokenise) -> tuple[str, str] | None:
        """Keep the row, or say why not."""
        try:
            tokens, length = tokenise(row)
        except DataError as error:
            return "template", error.what
        if length > self.max_length:
            return "too_long", f"{length} tokens, max_length is {self.max_length}"
        if first := self.seen.get(tokens["id"]):
            return "duplicate", f"the same as {first}"
        self.seen[tokens["id"]] = f"{source.path.name}:{row.line}"
        source.kept.append(tokens)
        return None

    def _with_system(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if self.system_prompt is None or messages[0]["role"] == "system":
            return messages
        return ({"role": "system", "content": self.system_prompt}, *messages)

    def _sft_row(self, row: Row) -> tuple[dict[str, Any], int]:
        rendered = render(self.tokenizer, self._with_system(row.messages))
        tokens = {
            "id": digest_of(list(row.messages)),
            "question": _question_hash(row.messages),
            "input_ids": rendered.input_ids,
            "labels": rendered.labels,
        }
        return tokens, len(rendered.input_ids)

    def _pair(self, row: PreferenceRow) -> tuple[dict[str, Any], int]:
        messages = self._with_system(row.messages)
        prompt = prompt_ids(self.tokenizer, messages)
        chosen, rejected = (self._answer(messages, answer, len(prompt)) for answer in (row.chosen, row.rejected))
        tokens = {
            "id": digest_of([list(row.messages), row.chosen, row.rejected]),
            "prompt_ids": prompt,
            "chosen_ids": chosen,
            "rejected_ids": rejected,
        }
        return tokens, len(prompt) + max(len(chosen), len(rejected))

    def _answer(self, messages: tuple[Message, ...], answer: str, prompt_length: int) -> list[int]:
        """The answer's tokens with its end of turn."""
        rendered = render(self.tokenizer, [*messages, {"role": "assistant", "content": answer}])
        return [label for label in rendered.labels[prompt_length:] if label != IGNORED]


def _question_hash(messages: tuple[Message, ...]) -> str:
    return digest_of([message["content"] for message in messages if message["role"] == "user"])


def _require_readable(paths: Iterable[Path]) -> None:
    """Raises: DataError naming every file that is missing, empty or not a list of rows."""
    faults = []
    for path in paths:
        try:
            next(iter(read_preferences(path)), None)
        except DataError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise DataError("\n".join(fault.what for fault in faults), do="correct the paths in the recipe, or put the files there")


def _refuse_faults(sources: list[_Source], policy: str) -> None:
    faults = [
        f"{source.path}, line {line}: {detail} [{reason}]"
        for source in sources
        for line, reason, detail in source.dropped
        if reason not in _DROPPED_QUIETLY
    ]
    if faults and policy == "refuse":
        more = [f"… and {len(faults) - _LISTED_FAULTS} more"] if len(faults) > _LISTED_FAULTS else []
        raise DataError(
            "\n".join([f"{len(faults)} rows cannot be used:", *faults[:_LISTED_FAULTS], *more]),
            why="a row that is silently left out is knowledge the model does not get",
            do="mend the rows, or set `data.bad_rows: drop` to leave them out and count them",
        )


def _split(rows: list[dict[str, Any]], fraction: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    held_back = [int(row["question"][:8], 16) / _HASH_SPACE < fraction for row in rows]
    train = [row for row, held in zip(rows, held_back, strict=True) if not held]
    return train, [row for row, held in zip(rows, held_back, strict=True) if held]


def _refuse_nothing(train: list[Any], validation: list[Any], pairs: list[Any], data: DataSection) -> None:
    faults = []
    if not train:
        faults.append("no row is left to train on")
    if not validation:
        faults.append(f"no row fell into the validation share of {data.validation_fraction:g}")
    if data.preferences and not pairs:
        faults.append("no preference pair is left")
    if faults:
        raise DataError(
            "; ".join(faults), do="add rows, raise `data.validation_fraction`, or raise `model.max_length` if rows were too long"
        )


def _write(out: Path, train: list[Any], validation: list[Any], pairs: list[Any], sources: list[_Source]) -> None:
    rejected = [
        {"file": source.path.name, "line": line, "reason": reason, "detail": detail}
        for source in sources
        for line, reason, detail in source.dropped
    ]
    for name, rows in ((TRAIN, train), (VALIDATION, validation), (PREFERENCES, pairs), (REJECTED, rejected)):
        lines = (json.dumps({key: value for key, value in row.items() if key != "question"}, ensure_ascii=False) for row in rows)
        write_text(out / name, "".join(line + "\n" for line in lines))
