import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.duplicates_rows import ANSWER, CHINESE, QUESTION, TEMPLATE, Row, find, instead
from training.data.duplicates_clusters import find_clusters, kept
from training.data.duplicates_signatures import signatures

DATA = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.mark.parametrize(
    "copy",
    [
        (QUESTION, ANSWER),
        (QUESTION.upper(), ANSWER.replace(",", " ").upper()),
        (QUESTION, ANSWER.replace("plenty", "plentty")),
        (QUESTION.replace("evening", "evenin"), ANSWER),
        (QUESTION, ANSWER.replace("rest for", "for rest")),
        (QUESTION, ANSWER.replace("a few days", "some days")),
        (QUESTION, f"{ANSWER} All the best to you both, it is not your fault."),
        ("  " + QUESTION.replace(" ", "\n "), ANSWER),
    ],
)
def test_a_row_written_twice_is_kept_once(copy: Row) -> None:
    assert instead([(QUESTION, ANSWER), copy]) == [0, 0]


@pytest.mark.parametrize(
    "copy",
    [
        CHINESE,
        (CHINESE[0].replace("，", ","), CHINESE[1].replace("。", ".")),
        (CHINESE[0], CHINESE[1].replace("休息", "体息")),
        (CHINESE[0].replace("处理", "办"), CHINESE[1]),
        (CHINESE[0], CHINESE[1] + "祝早日康复。"),
    ],
)
def test_a_chinese_row_written_twice_is_kept_once(copy: Row) -> None:
    assert instead([CHINESE, copy]) == [0, 0]


@pytest.mark.parametrize(
    "other",
    [
        (QUESTION.replace("fever", "rash"), ANSWER),
        (QUESTION, ANSWER.replace("three", "five")),
        (QUESTION, ANSWER.replace("three", "3").replace("rest", "rest 12 hours")),
        (QUESTION, ANSWER.replace("Drink", "Do not drink")),
        (QUESTION.replace("should I", "should I not"), ANSWER),
        (f"{QUESTION} He has type 2 diabetes.", ANSWER),
        (QUESTION, "Call 911."),
        (f"{TEMPLATE}We liked it here.", "negative"),
        (f"{TEMPLATE}We liked it here.", "否"),
    ],
)
def test_a_row_that_says_something_else_is_kept(other: Row) -> None:
    rows = [(QUESTION, ANSWER), (f"{TEMPLATE}We liked it here.", "positive"), (f"{TEMPLATE}We liked it here.", "是")]

    assert [instead([row, other]) for row in rows] == [[0, 1]] * 3


INHERITED = (
    "This condition is inherited in an autosomal recessive pattern, which means both copies of the gene in each cell have mutations. "
    "The parents of an individual with an autosomal recessive condition each carry one copy of the mutated gene, but they typically "
    "do not show signs and symptoms of the condition."
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Fabry disease", "Gaucher disease"),
        ("Usher syndrome, type 1B", "Usher syndrome, type 1C"),
        ("mucolipidosis II", "mucolipidosis III"),
        ("hepatitis A", "hepatitis B"),
    ],
)
def test_the_same_answer_to_a_question_about_something_else_is_kept(one: str, other: str) -> None:
    assert instead([(f"Is {one} inherited?", INHERITED), (f"Is {other} inherited?", INHERITED)]) == [0, 1]


def test_a_word_exchanged_in_question_and_answer_is_the_subject() -> None:
    """One Chinese character of thirty: as a slip of the pen it would be a duplicate."""
    question, answer = (
        "患者因难产导致臂丛神经麻痹，病理分型为中臂型，应该如何进行治疗和护理？",
        "中臂型臂丛神经麻痹建议进行被动运动、按摩等辅助治疗，同时配合肌电图检査。",
    )

    assert instead([(question, answer), (question.replace("中", "下"), answer.replace("中", "下"))]) == [0, 1]
    assert instead([(question, answer), (question.replace("因", "困"), answer)]) == [0, 0]


def test_rows_that_share_only_a_long_template_are_kept() -> None:
    words = ["room", "bed", "breakfast", "view", "staff", "pool", "street", "lift", "garden", "bar", "tea", "towel", "price", "key", "lamp"]
    rows = [(f"{TEMPLATE}The {one} was nicer than the {other}.", "positive") for one in words for other in words if one != other]

    assert instead(rows) == list(range(len(rows)))


def test_a_copy_among_rows_of_one_template_is_found() -> None:
    words = ["room", "bed", "breakfast", "view", "staff", "pool", "street", "lift", "garden", "bar", "tea", "towel", "price", "key", "lamp"]
    rows = [
        (f"{TEMPLATE}The {one} was much nicer than the {other}, and we had a good time with the {one}.", "positive")
        for one in words
        for other in words
    ]
    rows.append((rows[7][0].replace("a good time", "a goood time"), "positive"))

    assert find(rows).near.nonzero()[0].tolist() == [len(rows) - 1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("hi", "hi!", True), ("Hello", "hello", True), ("hi", "hello", False), ("👍", "👎", False), ("x > 3", "x < 3", False)],
)
def test_short_rows_are_compared_by_what_they_have(one: str, other: str, same: bool) -> None:
    assert (instead([(one, ""), (other, "")]) == [0, 0]) is same


def test_rows_without_a_word_are_dropped_only_when_they_are_exactly_the_same() -> None:
    assert instead([("...", ""), ("!!!", ""), ("", ""), ("...", ""), ("", "")]) == [0, 1, 2, 0, 2]


def test_of_medquad_only_rows_on_the_same_subject_are_dropped() -> None:
    """Plain MinHash at the same threshold drops several hundred rows for one about another disease."""
    path = DATA / "med_en" / "medquad.jsonl"
    if not path.exists():
        pytest.skip("no shared data: 5000 MedQuAD rows not compared")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [(record["question"], record["answer"]) for record in records]
    topics = np.array([f"{record['focus'].casefold().replace('-', ' ')}|{record['qtype']}" for record in records])

    found = find(rows)
    sketch = signatures(["\n".join(row) for row in rows], 64)
    plain = kept(find_clusters(sketch, 0.7), "first", np.zeros(len(rows), np.int64), np.ones(len(rows)))

    assert len(rows) == 5000
    assert (found.exact.sum(), found.near.sum()) == (4, 1)
    assert (topics[found.kept_instead] == topics).all()
    assert (topics[plain] != topics).sum() > 300
