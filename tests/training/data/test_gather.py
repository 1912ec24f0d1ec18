"""All rows together: every one ends once, whatever the number of workers; duplicates, leaks and weights over all sources."""

import gzip
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from training.data.accounting import REJECTED, Ledger, Tally
from training.data.config import DataSection
from training.data.gather import Gathered, distinct_labels, gather
from training.data.leakage import SuitePrompt
from training.data.profile_builder import ProfileBuilder
from training.data.refine import Measured
from training.data.rows import Example
from training.errors import DataError
from training.progress import silent

WORDS = [
    "fever",
    "cough",
    "rash",
    "pain",
    "sleep",
    "diet",
    "burn",
    "sprain",
    "nausea",
    "cramp",
    "thirst",
    "chill",
    "itch",
    "swelling",
    "bruise",
    "fatigue",
]


def row(number: int) -> dict[str, str]:
    """A question and an answer that share few words with any other."""
    words = [WORDS[(number * step + step) % len(WORDS)] + str(number) for step in (1, 3, 5, 7, 11)]
    return {"instruction": f"Question about {' '.join(words)}?", "output": f"Rest and see a doctor about {' and '.join(reversed(words))}."}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
    return path


def gathered(tmp_path: Path, sources: list[dict[str, Any]], prompts: tuple[SuitePrompt, ...] = (), **data: Any) -> tuple[Gathered, Tally]:
    section = DataSection.model_validate({"sft": sources, **data})
    with Ledger(tmp_path / REJECTED) as ledger:
        found = gather(section, [("sft", each) for each in section.sft], prompts, None, None, ledger, ProfileBuilder(), tmp_path, silent)
        return found, ledger.close()


def places(found: Gathered, side: str) -> list[str]:
    return [str(found.rows[number].place) for number in found.sides[side]]  # type: ignore[index]


def test_one_worker_and_three_give_the_same_rows_on_the_same_sides(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(number) for number in range(4000)] + [row(7), {"instruction": ""}])
    outcomes = []
    for workers in (1, 3):
        found, tally = gathered(tmp_path, [{"path": path}], workers=workers)
        outcomes.append((places(found, "train"), places(found, "validation"), tally.total().dropped))

    assert outcomes[0] == outcomes[1]
    train, validation, dropped = outcomes[0]
    assert len(train) + len(validation) == 4000
    assert dropped == {"duplicate": 1, "empty_question": 1}


def test_a_worker_that_is_killed_is_one_clear_error(tmp_path: Path) -> None:
    parent = os.getpid()

    def measure(example: Example) -> Measured:
        if os.getpid() != parent and "number" in example.messages[0]["content"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return Measured(b"{}", 1, 1)

    rows = [row(number) for number in range(4000)]
    path = write(tmp_path / "rows.jsonl", [*rows, {"instruction": "the last number", "output": "x"}])
    section = DataSection.model_validate({"sft": [{"path": path}], "workers": 2})

    with pytest.raises(DataError, match="was killed"), Ledger(tmp_path / REJECTED) as ledger:
        gather(section, [("sft", section.sft[0])], (), None, lambda: measure, ledger, ProfileBuilder(), tmp_path, silent)

    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_same_row_in_two_files_is_kept_once_and_names_the_first(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, [row(1), row(number)]) for number, name in ((2, "one.jsonl"), (3, "two.jsonl")))

    _, tally = gathered(tmp_path, [{"path": one}, {"path": two}])

    (rejected,) = [json.loads(line) for line in (tmp_path / REJECTED).read_text(encoding="utf-8").splitlines()]
    assert (rejected["file"], rejected["line"], rejected["detail"]) == ("two.jsonl", 1, "the same as one.jsonl:1")
    assert tally.sources["two.jsonl"].dropped == {"duplicate": 1}


def test_a_row_that_asks_what_a_suite_asks_is_not_trained_on(tmp_path: Path) -> None:
    prompt = SuitePrompt("clinic", "fever-01", row(5)["instruction"].upper(), "See a doctor at once, please do.")
    path = write(tmp_path / "rows.jsonl", [row(number) for number in range(10)])

    found, tally = gathered(tmp_path, [{"path": path}], (prompt,))

    assert tally.total().dropped == {"leaked": 1}
    assert "rows.jsonl:6" not in places(found, "train") + places(found, "validation")


def test_weights_repeat_rows_on_the_training_side_only(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(number) for number in range(50)])

    found, tally = gathered(tmp_path, [{"path": path, "weight": 2.0}], balance={"strategy": "weights"}, validation_fraction=0.3)

    assert len(list(found.lines("train"))) == 2 * len(found.sides["train"])
    assert len(list(found.lines("validation"))) == len(found.sides["validation"]) > 3
    assert tally.total().rows_used == 50


def test_masked_rows_hold_placeholders_and_so_does_what_was_left_out(tmp_path: Path) -> None:
    secret = "ann.smith@example.com"
    rows = [{**row(1), "output": f"Write to {secret} today."}, {**row(2), "output": f"Write to {secret} today.", "system": 5}]
    path = write(tmp_path / "rows.jsonl", rows)

    found, _ = gathered(tmp_path, [{"path": path}], privacy={"mode": "mask"})

    (kept,) = found.rows
    assert "[EMAIL_1]" in found.spool.sides(kept)[1]
    assert kept.changes == ("privacy",)
    assert secret not in (tmp_path / REJECTED).read_text(encoding="utf-8")


def test_a_packed_folder_of_several_formats_is_one_source(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    turns = [{"role": "user", "content": "Is a rash with fever urgent?"}, {"role": "assistant", "content": "Yes, call us today."}]
    with gzip.open(folder / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"messages": turns}) + "\n")
    write(folder / "a.jsonl", [row(1)])

    found, _ = gathered(tmp_path, [{"path": folder}])

    assert sorted(places(found, "train") + places(found, "validation")) == ["rows/a.jsonl:1", "rows/b.jsonl.gz:1"]


def test_two_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    section = DataSection.model_validate({"sft": [{"path": "a/rows.jsonl"}, {"path": "b/rows.jsonl"}]})
    assert distinct_labels(section.sft) == ["rows.jsonl", "rows.jsonl (2)"]


@pytest.mark.parametrize("action", ["report", "remove"])
def test_questions_that_are_trained_on_are_remembered_as_hashes(tmp_path: Path, action: str) -> None:
    prompt = SuitePrompt("clinic", "fever-01", row(5)["instruction"], "See a doctor at once, please do.")
    path = write(tmp_path / "rows.jsonl", [row(number) for number in range(10)])

    found, _ = gathered(tmp_path, [{"path": path}], (prompt,), leakage={"action": action}, validation_fraction=0.01)

    assert found.train_keys().contains(prompt.text) == (action == "report")
