"""Turns the recipe's sources into tokenised training, validation and preference rows, with every row in and out accounted for.

What happens to a row on the way is `training/data/` (start with `rows.py`; `refine.py` has the order of the steps). Here rows are
rendered, once, with the base model's own template; the trainers only pad. A row is held back for validation by the hash of its
question: adding rows never moves an old one. Beside the rows lie `rejected.jsonl` (file, line and reason of every row that was
left out), `data_report.json` and `data_report.html`. Next: `sft.py`.
"""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from training.atomic import sync_tree
from training.chat import IGNORED, prompt_ids, render
from training.config import DataSection, ModelSection
from training.data.accounting import REJECTED, Ledger, Tally
from training.data.fingerprint import fingerprint
from training.data.formats import Stage
from training.data.gather import Gathered, Side, distinct_labels, gather
from training.data.held_apart import TRAIN_KEYS
from training.data.leakage import SuitePrompt
from training.data.profile import DataProfile, write_profile
from training.data.profile_builder import ProfileBuilder
from training.data.reasons import REASONS
from training.data.refine import Measure, Measured, Refiner
from training.data.report import REPORT_PAGE, DataReport, write_report
from training.data.rows import Example, Labelled, Message, Pair
from training.data.sources import SourceSection
from training.errors import DataError
from training.practice.template import check_template
from training.progress import Report
from training.records import BaseModelRecord, DatasetManifest, SourceCount, digest_files, digest_of
from training.tokenizer import load_tokenizer

TRAIN, VALIDATION, PREFERENCES = "train.jsonl", "validation.jsonl", "preference_train.jsonl"

_FILES: tuple[tuple[Side, str], ...] = (("train", TRAIN), ("validation", VALIDATION), ("preferences", PREFERENCES))
_LISTED_FAULTS = 20


def prepare_dataset(
    model: ModelSection,
    data: DataSection,
    base: BaseModelRecord,
    out: Path,
    report: Report,
    prompts: Sequence[SuitePrompt] = (),
    preferred: Stage = "dpo",
) -> DatasetManifest:
    """Write the tokenised rows to `out` and return their manifest.

    Args:
        prompts: of every suite the model will be judged by; rows that overlap them are not trained on.
        preferred: what the rows of `data.preferences` are for: `dpo` takes pairs, `kto` labelled answers and pairs.

    Raises:
        DataError: sources that cannot be read, rows that are malformed, or nothing left to train on.
        ModelError: the tokenizer or its chat template cannot be used.
    """
    started = time.monotonic()
    require_readable([*data.sft, *data.preferences])
    wanted: list[tuple[Stage, SourceSection]] = [*(("sft", each) for each in data.sft), *((preferred, each) for each in data.preferences)]
    check_template(load_tokenizer(Path(base.folder)), Path(base.folder))
    out.mkdir(parents=True, exist_ok=True)
    profile = ProfileBuilder()

    def make_measure() -> Measure:
        return renderer(load_tokenizer(Path(base.folder)), data.system_prompt)

    with Ledger(out / REJECTED) as ledger:
        gathered = gather(data, wanted, prompts, model.max_length, make_measure, ledger, profile, out, report)
        _refuse_faults(ledger.tally, data.bad_rows)
        _refuse_leaks(ledger.tally, data)
        _refuse_nothing(gathered, data)
        counts = {side: _write(out / name, gathered.lines(side)) for side, name in _FILES}
        gathered.train_keys().write(out / TRAIN_KEYS)
        tally = ledger.close()
    made = _profile(profile, tally, gathered, data, base.source, model.max_length, counts, {prompt.suite for prompt in prompts})
    write_profile(out, made)
    write_report(out / REPORT_PAGE, DataReport(base.source, made))
    gathered.spool.close()
    sync_tree(out)
    manifest = DatasetManifest(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - started,
        base_digest=base.digest,
        section_digest=digest_of([data.digest, model.max_length]),
        sources=_counts(tally, [section for _, section in wanted]),
        train_rows=counts["train"],
        validation_rows=counts["validation"],
        preference_rows=counts["preferences"],
        repeated_rows=made.repeated_rows,
        train_tokens=sum(gathered.rows[number].weights[1] * gathered.copies[number] for number in gathered.sides["train"]),
        loss_tokens=sum(gathered.rows[number].weights[2] * gathered.copies[number] for number in gathered.sides["train"]),
        files=digest_files(out),
    )
    if sum(counts.values()) - manifest.repeated_rows != sum(source.kept for source in manifest.sources):
        raise AssertionError("rows were lost between reading and writing")
    manifest.write(out)
    return manifest


def read_prepared(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The first `limit` rows of a prepared file, as lists of token ids; a labelled row has `desirable` beside them."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, limit)]


def renderer(tokenizer: Any, system_prompt: str | None) -> Measure:
    """What writes an example as token ids under the tokenizer's chat template, and counts them."""

    def measure(example: Example) -> Measured:
        messages = _with_system(example.messages, system_prompt)
        if isinstance(example, Pair):
            return _pair(tokenizer, example, messages)
        return _labelled(tokenizer, example, messages) if isinstance(example, Labelled) else _row(tokenizer, example, messages)

    return measure


def _with_system(messages: tuple[Message, ...], system_prompt: str | None) -> tuple[Message, ...]:
    if system_prompt is None or messages[0]["role"] == "system":
        return messages
    return ({"role": "system", "content": system_prompt}, *messages)


def _row(tokenizer: Any, example: Example, messages: tuple[Message, ...]) -> Measured:
    rendered = render(tokenizer, messages)
    tokens = {"id": digest_of(list(example.messages)), "input_ids": rendered.input_ids, "labels": rendered.labels}
    loss_tokens = len(rendered.labels) - rendered.labels.count(IGNORED)
    return Measured(orjson.dumps(tokens), len(rendered.input_ids), loss_tokens)


def _pair(tokenizer: Any, pair: Pair, messages: tuple[Message, ...]) -> Measured:
    prompt = prompt_ids(tokenizer, messages)
    chosen, rejected = (_answer_ids(tokenizer, messages, answer, len(prompt)) for answer in (pair.chosen, pair.rejected))
    tokens = {
        "id": digest_of([list(pair.messages), pair.chosen, pair.rejected]),
        "prompt_ids": prompt,
        "chosen_ids": chosen,
        "rejected_ids": rejected,
    }
    return Measured(orjson.dumps(tokens), len(prompt) + max(len(chosen), len(rejected)), min(len(chosen), len(rejected)))


def _labelled(tokenizer: Any, labelled: Labelled, messages: tuple[Message, ...]) -> Measured:
    prompt = prompt_ids(tokenizer, messages[:-1])
    answer = _answer_ids(tokenizer, messages[:-1], messages[-1]["content"], len(prompt))
    tokens = {
        "id": digest_of([list(labelled.messages), labelled.desirable]),
        "prompt_ids": prompt,
        "answer_ids": answer,
        "desirable": labelled.desirable,
    }
    return Measured(orjson.dumps(tokens), len(prompt) + len(answer), len(answer))


def _answer_ids(tokenizer: Any, messages: tuple[Message, ...], answer: str, prompt_length: int) -> list[int]:
    """The answer's tokens with its end of turn."""
    rendered = render(tokenizer, [*messages, {"role": "assistant", "content": answer}])
    return [label for label in rendered.labels[prompt_length:] if label != IGNORED]


def require_readable(sections: Sequence[SourceSection]) -> None:
    """Raises: DataError naming every source whose first row cannot be reached."""
    from training.data.sources import open_source

    faults = []
    for section in sections:
        try:
            next(iter(open_source(section)), None)
        except DataError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise DataError("\n".join(fault.what for fault in faults), do="correct the sources in the recipe, or put the files there")


def _refuse_faults(tally: Tally, policy: str) -> None:
    counts = {code: rows for code, rows in tally.total().dropped.items() if not REASONS[code].quiet}
    if not counts or policy != "refuse":
        return
    examples = [row for code in counts for row in tally.examples.get(code, ())][:_LISTED_FAULTS]
    listed = [f"{row.place.file}, line {row.place.line}: {row.detail} [{row.reason}]" for row in examples]
    more = sum(counts.values()) - len(listed)
    raise DataError(
        "\n".join([f"{sum(counts.values())} rows cannot be used:", *listed, *([f"… and {more} more"] if more else [])]),
        why="a row that is silently left out is knowledge the model does not get",
        do="mend the rows (`tunegate data check` shows them all), or set `data.bad_rows: drop` to leave them out and count them",
    )


def _refuse_leaks(tally: Tally, data: DataSection) -> None:
    leaked = tally.total().dropped["leaked"]
    if leaked and data.leakage.action == "refuse":
        listed = [f"{row.place}: {row.detail}" for row in tally.examples.get("leaked", ())]
        raise DataError(
            "\n".join([f"{leaked} rows overlap the prompts that the model will be judged by:", *listed]),
            why="a model that has seen the questions is not judged by them",
            do="take those rows out, or set `data.leakage.action: remove`",
        )


def _refuse_nothing(gathered: Gathered, data: DataSection) -> None:
    faults = []
    if not gathered.sides["train"]:
        faults.append("no row is left to train on")
    if not gathered.sides["validation"]:
        faults.append(f"no row is held back for validation ({data.split})")
    if data.preferences and not gathered.sides["preferences"]:
        faults.append("no row to learn preferences from is left")
    if faults:
        raise DataError(
            "; ".join(faults), do="add rows, raise `data.validation_fraction`, or raise `model.max_length` if rows were too long"
        )


def _write(path: Path, lines: Iterator[bytes]) -> int:
    """The folder is not finished before its record is written, so the rows may be written in place."""
    rows = 0
    with path.open("wb") as file:
        for line in lines:
            file.write(line + b"\n")
            rows += 1
    return rows


def _counts(tally: Tally, sections: Sequence[SourceSection]) -> tuple[SourceCount, ...]:
    return tuple(
        SourceCount(
            path=label,
            sha256=fingerprint(section) or "",
            format=section.format,
            rows_in=counts.rows_in,
            kept=counts.rows_used,
            dropped=dict(sorted(counts.dropped.items())),
        )
        for section, label in zip(sections, distinct_labels(sections), strict=True)
        for counts in [tally.sources[label]]
    )


def _profile(
    builder: ProfileBuilder,
    tally: Tally,
    gathered: Gathered,
    data: DataSection,
    tokenizer: str,
    max_length: int,
    counts: dict[Side, int],
    suites: set[str],
) -> DataProfile:
    return builder.build(
        tally,
        Refiner(data, (), None, None).masked,
        tokenizer=tokenizer,
        max_length=max_length,
        train_rows=counts["train"],
        validation_rows=counts["validation"],
        preference_rows=counts["preferences"],
        repeated_rows=counts["train"] - len(gathered.sides["train"]),
        fold=data.split if data.folds else "",
        privacy=data.privacy_mode,
        suites=suites,
        duplicates=gathered.duplicate_counts(data.duplicates),
        read=gathered.how_read(),
        balance=gathered.balanced.plan if gathered.balanced else (),
    )
