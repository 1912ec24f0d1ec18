"""Simplified and traditional Chinese say the same, to the searches for duplicates and leaks."""

import pytest

from tests.training.data.duplicates_rows import CHINESE, instead
from training.data.chinese_characters import simplified_characters
from training.data.duplicates_characters import normalised
from training.data.leakage import Index, SuitePrompt
from training.data.leakage_keys import TrainKeys
from training.data.shingles import keys_of, tokens_of

PAIRS = [
    ("請問寶寶發燒怎麼辦", "请问宝宝发烧怎么办"),
    ("頭髮乾枯，看著裏面", "头发干枯，看着里面"),
    ("頭髮乾枯，看着裡面", "头发干枯，看着里面"),
    ("瞭解藉口", "了解借口"),
    ("臺灣颱風檯燈", "台湾台风台灯"),
]
TRADITIONAL = (
    "孩子從週一晚上開始發燒，應該怎麼處理？",
    "多喝水，注意休息，按體重服用退燒藥。如果發熱超過三天、呼吸困難或出現皮疹，請及時帶孩子去兒科門診就診。",
)


@pytest.mark.parametrize(("traditional", "simplified"), PAIRS)
def test_both_writings_give_the_same_tokens(traditional: str, simplified: str) -> None:
    old, new = keys_of(tokens_of([traditional, simplified])).tolist()

    assert normalised(traditional) == normalised(simplified)
    assert old == new


def test_the_table_is_whole_and_folds_to_where_nothing_folds_further() -> None:
    table = simplified_characters()

    assert len(table) > 4000
    assert not set(table.values()) & table.keys()


@pytest.mark.parametrize("other", ["孩子從週一晚上開始咳嗽，應該怎麼處理？", "孩子從週五晚上開始發燒，不應該怎麼處理？"])
def test_a_different_question_in_the_other_writing_stays_different(other: str) -> None:
    assert instead([CHINESE, (other, TRADITIONAL[1])]) == [0, 1]


def test_a_row_in_the_other_writing_is_a_near_duplicate() -> None:
    assert instead([CHINESE, TRADITIONAL]) == [0, 0]


def test_a_question_in_the_other_writing_leaks_exactly() -> None:
    index = Index([SuitePrompt("gate_zh", "fever", CHINESE[0].replace("周", "週"), CHINESE[1])])

    overlap = index.overlap(TRADITIONAL[0], "我不清楚。")

    assert overlap is not None
    assert (overlap.kind, overlap.score) == ("exact", 1.0)


def test_an_evaluation_that_asks_it_in_the_other_writing_is_known() -> None:
    assert TrainKeys.of([CHINESE[0]]).contains(TRADITIONAL[0])
