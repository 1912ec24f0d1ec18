import json
from pathlib import Path

import pytest

from tests.fakes_training import TinyLine, alpaca_rows, preference_rows, write_jsonl
from training.chat import IGNORED
from training.config import DataSection
from training.data.profile import PROFILE
from training.errors import DataError
from training.prepare import PREFERENCES, REJECTED, REPORT_PAGE, TRAIN, TRAIN_KEYS, VALIDATION, prepare_dataset, read_prepared
from training.progress import silent
from training.records import DatasetManifest, verify_files
from training.tokenizer import load_tokenizer

FAIR = {"output": "See a doctor today.", "input": ""}


def prepare(tiny: TinyLine, folder: Path, rows: list[dict[str, str]], **settings: object) -> DatasetManifest:
    path = write_jsonl(folder / "rows.jsonl", rows)
    data = DataSection.model_validate({"sft": [{"path": path}], "validation_fraction": 0.3, **settings})
    return prepare_dataset(tiny.model, data, tiny.base, folder / "out", silent)


def test_every_row_in_comes_out_kept_or_dropped_by_name(tiny: TinyLine, tmp_path: Path) -> None:
    rows = [*alpaca_rows(20), alpaca_rows(1)[0], {**FAIR, "instruction": "long " * 200}]

    manifest = prepare(tiny, tmp_path, rows)

    (source,) = manifest.sources
    assert (source.rows_in, source.kept, source.dropped) == (22, 20, {"duplicate": 1, "too_long": 1})
    assert manifest.train_rows + manifest.validation_rows == 20


def test_a_row_left_out_lies_in_rejected_with_file_line_and_reason(tiny: TinyLine, tmp_path: Path) -> None:
    prepare(tiny, tmp_path, [*alpaca_rows(20), alpaca_rows(1)[0]])

    (rejected,) = [json.loads(line) for line in (tmp_path / "out" / REJECTED).read_text().splitlines()]
    row = json.loads(rejected.pop("row"))
    assert rejected == {"file": "rows.jsonl", "line": 21, "reason": "duplicate", "detail": "the same as rows.jsonl:1"}
    assert row == {"question": alpaca_rows(1)[0]["instruction"], "answer": alpaca_rows(1)[0]["output"]}


def test_adding_rows_never_moves_an_old_one(tiny: TinyLine, tmp_path: Path) -> None:
    prepare(tiny, tmp_path / "few", alpaca_rows(20))
    prepare(tiny, tmp_path / "more", alpaca_rows(40)[::-1])

    for name in (TRAIN, VALIDATION):
        few, more = ({row["id"] for row in read_prepared(tmp_path / which / "out" / name)} for which in ("few", "more"))
        assert few
        assert few < more


def test_the_same_question_is_never_on_both_sides(tiny: TinyLine, tmp_path: Path) -> None:
    rows = [{**row, "output": answer} for row in alpaca_rows(30) for answer in ("See a doctor.", "Call 911 now.")]

    manifest = prepare(tiny, tmp_path, rows)

    assert manifest.validation_rows > 2
    assert (manifest.train_rows % 2, manifest.validation_rows % 2) == (0, 0)


def test_loss_tokens_are_those_with_a_label(tiny: TinyLine) -> None:
    rows = read_prepared(tiny.dataset_dir / TRAIN)

    assert tiny.dataset.train_tokens == sum(len(row["input_ids"]) for row in rows)
    assert tiny.dataset.loss_tokens == sum(label != IGNORED for row in rows for label in row["labels"])
    assert 0 < tiny.dataset.loss_tokens < tiny.dataset.train_tokens


def test_preparing_twice_gives_the_same_digest(tiny: TinyLine, tmp_path: Path) -> None:
    first, second = (prepare(tiny, tmp_path / name, alpaca_rows(20)) for name in ("one", "two"))

    assert first.digest == second.digest


def test_the_manifest_lists_every_file_and_nothing_else(tiny: TinyLine) -> None:
    assert {file.path for file in tiny.dataset.files} == {TRAIN, VALIDATION, PREFERENCES, REJECTED, PROFILE, REPORT_PAGE, TRAIN_KEYS}
    verify_files(tiny.dataset_dir, tiny.dataset.files)
    assert DatasetManifest.read(tiny.dataset_dir) == tiny.dataset


def test_the_system_prompt_stands_first_where_a_row_has_none(tiny: TinyLine, tmp_path: Path) -> None:
    own = {"messages": [{"role": "system", "content": "Mine."}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    prepare(tiny, tmp_path, [*alpaca_rows(20), own], system_prompt="Be careful.")  # type: ignore[list-item]

    tokenizer = load_tokenizer(Path(tiny.base.folder))
    texts = [tokenizer.decode(row["input_ids"]) for name in (TRAIN, VALIDATION) for row in read_prepared(tmp_path / "out" / name)]
    assert sum("Be careful." in text for text in texts) == 20
    assert sum("Mine." in text for text in texts) == 1


def test_pairs_are_tokenised_with_the_end_of_turn_in_both_answers(tiny: TinyLine) -> None:
    pairs = read_prepared(tiny.dataset_dir / PREFERENCES)

    assert len(pairs) == tiny.dataset.preference_rows == len(preference_rows())
    assert all(pair[key][-1] == 2 for pair in pairs for key in ("chosen_ids", "rejected_ids"))


def test_all_malformed_rows_are_named_at_once_with_file_and_line(tiny: TinyLine, tmp_path: Path) -> None:
    rows = [*alpaca_rows(20), {"instruction": "a", "output": ""}, {"question": "b"}]

    with pytest.raises(DataError) as caught:
        prepare(tiny, tmp_path, rows)

    assert "2 rows cannot be used" in caught.value.what
    assert "rows.jsonl, line 21: `output` is empty [empty_answer]" in caught.value.what
    assert "line 22" in caught.value.what


def test_malformed_rows_may_be_dropped_and_are_counted(tiny: TinyLine, tmp_path: Path) -> None:
    manifest = prepare(tiny, tmp_path, [*alpaca_rows(20), {"instruction": "a", "output": ""}], bad_rows="drop")

    assert manifest.sources[0].dropped == {"empty_answer": 1}


def test_all_missing_files_are_named_at_once(tiny: TinyLine, tmp_path: Path) -> None:
    data = DataSection.model_validate({"sft": [{"path": tmp_path / "a.jsonl"}], "preferences": [{"path": tmp_path / "b.jsonl"}]})

    with pytest.raises(DataError, match=r"(?s)a\.jsonl is not there.*b\.jsonl is not there"):
        prepare_dataset(tiny.model, data, tiny.base, tmp_path / "out", silent)


def test_rows_that_are_all_too_long_leave_nothing_to_train_on(tiny: TinyLine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row is left to train on"):
        prepare(tiny, tmp_path, [{**FAIR, "instruction": "long " * 200}])


def test_a_row_of_a_million_tokens_is_dropped_for_its_length(tiny: TinyLine, tmp_path: Path) -> None:
    """To the tiny model's tokenizer each `long ` is five tokens."""
    manifest = prepare(tiny, tmp_path, [*alpaca_rows(20), {**FAIR, "instruction": "long " * 200_000}])

    assert manifest.sources[0].dropped == {"too_long": 1}


def test_a_fold_is_held_back_and_the_others_are_trained_on(tiny: TinyLine, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", alpaca_rows(20))
    trained: list[object] = []
    for fold in range(4):
        data = DataSection.model_validate({"sft": [{"path": path}], "folds": 4, "fold": fold})
        out = tmp_path / str(fold)
        manifest = prepare_dataset(tiny.model, data, tiny.base, out, silent)
        assert manifest.train_rows + manifest.validation_rows == 20
        trained += [row["id"] for row in read_prepared(out / TRAIN)]

    assert {trained.count(each) for each in trained} == {3}
