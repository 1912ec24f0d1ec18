"""The labelled set is sound, and the masker finds in it at least what it found when it was measured."""

import re
from itertools import pairwise

import pytest
from stdnum import iban, luhn
from stdnum.gb import nhs

from tests.benchmarks.data_privacy import HALVES, Scores, labelled_items, masker_finder, plain_finder, score
from training.data.privacy import KINDS, Masker, PrivacySection

_ITEMS = labelled_items()
_FIND = masker_finder(Masker(PrivacySection()))


@pytest.fixture(scope="module")
def held_out() -> Scores:
    return score([item for item in _ITEMS if item.half == "held-out"], _FIND)


def test_the_set_is_large_bilingual_and_a_third_of_it_only_tempts() -> None:
    chinese = sum(item.language == "zh" for item in _ITEMS)

    assert len(_ITEMS) >= 300
    assert 0.45 < chinese / len(_ITEMS) < 0.55
    assert sum(not item.spans for item in _ITEMS) / len(_ITEMS) >= 0.35
    assert len({item.text for item in _ITEMS}) == len({item.id for item in _ITEMS}) == len(_ITEMS)
    assert all(sum(item.half == half for item in _ITEMS) > 0.4 * len(_ITEMS) for half in HALVES)


def test_labels_lie_within_their_text_do_not_overlap_and_cover_every_kind() -> None:
    for item in _ITEMS:
        places = sorted((start, end) for start, end, _ in item.spans)
        assert all(0 <= start < end <= len(item.text) and item.text[start:end] == item.text[start:end].strip() for start, end in places)
        assert all(end <= start for (_, end), (start, _) in pairwise(places))
    assert {kind for item in _ITEMS for _, _, kind in item.spans} == set(KINDS)


def test_invented_numbers_carry_true_checksums() -> None:
    checks = {"iban": iban.is_valid, "bank_card": luhn.is_valid, "uk_nhs": nhs.is_valid}
    numbers = [(kind, re.sub("[ -]", "", item.text[start:end])) for item in _ITEMS for start, end, kind in item.spans if kind in checks]

    assert len(numbers) >= 20
    assert [number for kind, number in numbers if not checks[kind](number)] == []


@pytest.mark.parametrize(
    ("language", "precision", "recall", "leak_ratio"),
    [("zh", 0.94, 0.94, 0.02), ("en", 0.97, 0.95, 0.03)],
)
def test_held_out_texts_are_masked_as_well_as_when_measured(
    held_out: Scores, language: str, precision: float, recall: float, leak_ratio: float
) -> None:
    total = held_out.total(language)

    assert total.labelled > 70
    assert (total.precision >= precision, total.recall >= recall, total.leak_ratio <= leak_ratio) == (True, True, True)


def test_held_out_numbers_and_addresses_are_all_found(held_out: Scores) -> None:
    total = held_out.total(kinds=[kind for kind in KINDS if kind != "name"])

    assert total.labelled > 80
    assert total.recall >= 0.98
    assert total.precision >= 0.97


def test_held_out_names_are_found(held_out: Scores) -> None:
    names = held_out.total(kinds=["name"])

    assert names.precision >= 0.95
    assert names.recall >= 0.90


def test_texts_without_personal_data_stay_as_they_are() -> None:
    untouched = [item for item in _ITEMS if not item.spans]

    assert sum(bool(_FIND(item.text)) for item in untouched) <= 0.03 * len(untouched)


def test_the_plain_patterns_it_is_compared_with_leave_most_personal_data() -> None:
    assert score(_ITEMS, plain_finder).total().leak_ratio > 0.5
