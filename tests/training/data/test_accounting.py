import json
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.atomic import sweep
from training.data.accounting import REJECTED, Ledger, Tally
from training.data.cleaning import EMPTY
from training.data.formats import FORMAT_REASONS
from training.data.read_record import RAW_CHARS, READING_REASONS
from training.data.reasons import CHOSEN_AWAY, REASONS, STAGES
from training.data.rows import Place, Rejected


def rejected(line: int, reason: str = "not_json", *, file: str = "a.jsonl", detail: str = "no", raw: str = "{") -> Rejected:
    return Rejected(Place(file, line), reason, detail, raw)


def read_back(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / REJECTED).read_text(encoding="utf-8").split("\n") if line]


def test_every_row_ends_as_kept_changed_or_dropped(tmp_path: Path) -> None:
    with Ledger(tmp_path / REJECTED) as ledger:
        for line in (1, 2, 3):
            ledger.enter("a", Place("a.jsonl", line))
        ledger.keep("a", Place("a.jsonl", 1))
        ledger.keep("a", Place("a.jsonl", 2), ["html", "html", "whitespace"])
        ledger.drop("a", rejected(3))

    counts = ledger.tally.sources["a"]
    assert (counts.rows_in, counts.kept, counts.changed, counts.dropped) == (3, 1, 1, {"not_json": 1})
    assert counts.changes == {"html": 1, "whitespace": 1}


def test_a_dropped_row_can_be_read_again_with_file_line_and_reason(tmp_path: Path) -> None:
    with Ledger(tmp_path / REJECTED) as ledger:
        ledger.enter("a", Place("a.jsonl", 7))
        ledger.drop("a", rejected(7, detail="not JSON at column 2", raw='{"问": ' + "x" * 5000))

    assert read_back(tmp_path) == [
        {"file": "a.jsonl", "line": 7, "reason": "not_json", "detail": "not JSON at column 2", "row": '{"问": ' + "x" * 5000}
    ]


def test_a_dropped_row_that_is_too_long_to_be_written_whole_says_so(tmp_path: Path) -> None:
    with Ledger(tmp_path / REJECTED) as ledger:
        ledger.enter("a", Place("a.jsonl", 7))
        ledger.drop("a", rejected(7, raw="x" * 50_000))

    (row,) = read_back(tmp_path)
    assert row["row"] == "x" * RAW_CHARS
    assert "only the first 20000 characters" in row["cut"]


def test_rejected_rows_are_raw_so_only_their_owner_may_read_them(tmp_path: Path) -> None:
    Ledger(tmp_path / REJECTED).close()

    assert stat.S_IMODE((tmp_path / REJECTED).stat().st_mode) == 0o600


@pytest.mark.parametrize("ends", [0, 2])
def test_a_lost_row_or_one_that_ends_twice_is_named_by_its_source(tmp_path: Path, ends: int) -> None:
    ledger = Ledger(tmp_path / REJECTED)
    ledger.enter("clinic.jsonl", Place("clinic.jsonl", 1))
    for _ in range(ends):
        ledger.keep("clinic.jsonl", Place("clinic.jsonl", 1))

    with pytest.raises(AssertionError, match=rf"clinic\.jsonl: 1 rows in, but {ends} kept"):
        ledger.close()


def test_sums_that_agree_by_chance_are_not_taken_for_an_account(tmp_path: Path) -> None:
    """Row 1 ends twice and row 2 never: two in, two ended."""
    ledger = Ledger(tmp_path / REJECTED)
    for line in (1, 2):
        ledger.enter("a", Place("a.jsonl", line))
    ledger.keep("a", Place("a.jsonl", 1))
    ledger.drop("a", rejected(1))

    with pytest.raises(AssertionError, match="a: the counts agree, but not the rows"):
        ledger.close()


def test_a_row_counted_for_the_wrong_source_is_noticed(tmp_path: Path) -> None:
    tally = Tally()
    tally.enter("a", Place("a.jsonl", 1))
    tally.keep("b", Place("a.jsonl", 1))

    with pytest.raises(AssertionError, match=r"^a: 1 rows in, but 0 kept"):
        tally.check()


def test_the_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / REJECTED)
    ledger.enter("a", Place("a.jsonl", 1))
    ledger.drop("a", rejected(1))
    assert not (tmp_path / REJECTED).exists()

    ledger.close()

    assert [path.name for path in tmp_path.iterdir()] == [REJECTED]


def test_a_failing_block_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail_halfway() -> None:
        with Ledger(tmp_path / REJECTED) as ledger:
            ledger.enter("a", Place("a.jsonl", 1))
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()

    assert list(tmp_path.iterdir()) == []


def test_the_leftovers_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    killed = Ledger(tmp_path / REJECTED)
    killed._file.close()
    assert list(tmp_path.iterdir())

    sweep(tmp_path / REJECTED)

    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(codec=None), max_size=40), st.text(st.characters(codec=None), max_size=40))
def test_no_text_breaks_the_file(tmp_path_factory: pytest.TempPathFactory, raw: str, file: str) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    with Ledger(folder / REJECTED) as ledger:
        ledger.enter(file, Place(file, 1))
        ledger.drop(file, rejected(1, file=file, detail=raw, raw=raw))

    (row,) = read_back(folder)
    assert (row["row"], row["file"]) == (raw, file)


def test_what_workers_count_adds_up_in_the_parent(tmp_path: Path) -> None:
    """The worker ends row 2 itself; row 1 is still open and ends in the parent, as a duplicate of a row it cannot know."""
    worker = Tally()
    for line in (1, 2):
        worker.enter("a", Place("a.jsonl", line))
    worker.drop("a", rejected(2))

    with Ledger(tmp_path / REJECTED) as ledger:
        ledger.merge(pickle.loads(pickle.dumps(worker)), [rejected(2)])
        ledger.drop("a", rejected(1, "duplicate"))

    assert ledger.tally.total().dropped == {"not_json": 1, "duplicate": 1}
    assert [row["line"] for row in read_back(tmp_path)] == [2, 1]


def test_a_worker_must_hand_over_every_row_it_counts_as_dropped(tmp_path: Path) -> None:
    worker = Tally()
    worker.enter("a", Place("a.jsonl", 1))
    worker.drop("a", rejected(1))
    ledger = Ledger(tmp_path / REJECTED)

    with pytest.raises(AssertionError, match="handed over"):
        ledger.merge(worker, [])
    ledger.discard()


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["keep", "change", "not_json", "too_long"])), max_size=30), st.integers(0, 30)
)
def test_tallies_add_up_to_the_same_wherever_the_rows_are_cut(rows: list[tuple[str, str]], cut: int) -> None:
    def counted(numbered: list[tuple[int, tuple[str, str]]]) -> Tally:
        tally = Tally()
        for line, (source, end) in numbered:
            tally.enter(source, Place(source, line))
            if end in REASONS:
                tally.drop(source, rejected(line, end, file=source))
            else:
                tally.keep(source, Place(source, line), ["html"] if end == "change" else [])
        return tally

    numbered = list(enumerate(rows))
    first, second = counted(numbered[:cut]), counted(numbered[cut:])

    assert first + second == second + first == counted(numbered)
    (first + second).check()


def test_the_first_rows_of_each_reason_are_kept_as_examples_in_file_order() -> None:
    tally = Tally()
    for line in (9, 3, 7, 1, 5):
        tally.enter("a", Place("a.jsonl", line))
        tally.drop("a", rejected(line))

    assert [row.place.line for row in tally.examples["not_json"]] == [1, 3, 5]
    assert tally.examples["not_json"][0].raw == ""


def test_a_reason_outside_the_closed_list_is_refused() -> None:
    with pytest.raises(AssertionError, match="'bad_luck' is not in REASONS"):
        Tally().drop("a", rejected(1, "bad_luck"))


def test_every_reason_that_reading_and_formats_can_give_is_in_the_table() -> None:
    given_reasons = READING_REASONS | FORMAT_REASONS | {EMPTY}

    assert len(given_reasons) > 40
    assert given_reasons - REASONS.keys() == set()


def test_every_reason_says_what_it_means_and_what_to_do() -> None:
    assert len(REASONS) > 50
    for reason in REASONS.values():
        assert reason.means.endswith(".")
        assert reason.do.endswith(".")
        assert reason.stage in STAGES


@pytest.mark.parametrize("code", ["duplicate", "near_duplicate", "too_long", "language", "leaked", "capped", "sampled_out"])
def test_well_formed_rows_that_a_step_did_not_want_are_no_fault_of_the_file(code: str) -> None:
    assert REASONS[code].quiet


@pytest.mark.parametrize("code", ["not_json", "template", "no_loss", "unknown_format", "truncated_file"])
def test_what_a_person_must_mend_is_not_quiet(code: str) -> None:
    assert not REASONS[code].quiet


def test_only_weights_and_caps_choose_rows_away() -> None:
    assert {"capped", "sampled_out"} == CHOSEN_AWAY
