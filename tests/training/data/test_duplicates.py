import random

import numpy as np
import pytest
from pydantic import ValidationError

from tests.training.data.duplicates_rows import ANSWER, QUESTION, find, instead
from training.data.duplicates import Compared, compared, find_duplicates, fingerprints
from training.data.duplicates_section import DuplicatesSection
from training.data.rows import Conversation, Example, Labelled, Message, Pair, Place

PLACE = Place("rows.jsonl", 1)


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


ROWS = [(QUESTION, ANSWER), ("Other?", "Other."), (QUESTION, f"{ANSWER} Take care."), (QUESTION, ANSWER)]


@pytest.mark.parametrize(("rule", "expected"), [("first", [0, 1, 0, 0]), ("longest", [2, 1, 2, 2]), ("highest_weight", [3, 1, 3, 3])])
def test_the_rule_says_which_row_of_a_group_stays(rule: str, expected: list[int]) -> None:
    section = DuplicatesSection.model_validate({"keep": rule})

    assert find(ROWS, section, weights=[1, 5, 1, 2]).kept_instead.tolist() == expected


def test_equals_are_settled_by_the_order_of_reading() -> None:
    assert find(ROWS[:1] * 5, DuplicatesSection(keep="highest_weight")).kept_instead.tolist() == [0] * 5


def test_exact_and_near_are_told_apart_and_switched_separately() -> None:
    both, exact, near = find(ROWS), find(ROWS, DuplicatesSection(near=False)), find(ROWS, DuplicatesSection(exact=False))

    assert (both.exact.tolist(), both.near.tolist()) == ([False, False, False, True], [False, False, True, False])
    assert (exact.kept_instead.tolist(), near.kept_instead.tolist()) == ([0, 1, 2, 0], [0, 1, 0, 0])
    assert instead(ROWS, DuplicatesSection(exact=False, near=False)) == [0, 1, 2, 3]


def test_conflicting_answers_are_counted_by_row() -> None:
    rows = [("Is it safe?", "Yes."), ("is it safe", "No."), ("Is it dear?", "Yes."), ("Is it dear?", "yes"), ("?", "a"), ("?", "b")]

    assert find(rows).conflicting == 2


def test_the_question_alone_is_compared_where_the_recipe_says_so() -> None:
    rows = [(QUESTION, "Yes."), (QUESTION, "No, by no means."), (QUESTION.replace("what should", "what shoud"), "Perhaps.")]

    assert instead(rows) == [0, 1, 2]
    assert instead(rows, DuplicatesSection(scope="question")) == [0, 0, 0]
    assert find(rows, DuplicatesSection(scope="question")).conflicting == 2


def test_a_dropped_row_is_the_same_as_the_very_row_kept_for_it() -> None:
    """Of 42 words three change at one end, then three at the other: Jaccard 0.86 with the row before, 0.74 with the one before that."""
    words = [f"{first}{second}" for first in "bcdfgh" for second in ("a", "ee", "i", "oo", "u", "ay", "ow")]
    begun, ended = ["one", "two", "three", *words[3:]], ["one", "two", "three", *words[3:-3], "ten", "eleven", "twelve"]
    middle = [*ended[:20], "twenty", *ended[21:]]
    rows = [("Tell me a story.", " ".join(text)) for text in (words, begun, ended, middle)]

    assert instead(rows) == [0, 0, 2, 2]


def test_how_rows_are_dealt_to_workers_changes_nothing() -> None:
    rng = random.Random(5)
    rows = [(f"Question {rng.choice('abcdefgh')} about fever and rest?", " ".join(rng.choices(ANSWER.split(), k=30))) for _ in range(300)]
    rows += [(question, answer + " indeed") for question, answer in rows[::3]]

    assert find(rows, chunk=7).kept_instead.tolist() == find(rows, chunk=1000).kept_instead.tolist()
    assert find(rows).near.sum() >= 90


def conversation(system: str, *turns: str) -> Conversation:
    roles = ("user", "assistant") * len(turns)
    return Conversation(PLACE, (message("system", system), *(message(role, turn) for role, turn in zip(roles, turns, strict=False))))


def test_the_system_turn_is_not_compared_but_keeps_rows_apart() -> None:
    one, same, other = (
        compared(conversation("Be kind.", "Hi", "Hello")),
        compared(conversation("Be kind.", "Hi", "Hello")),
        compared(conversation("Be a pirate.", "Hi", "Hello")),
    )

    assert (one.question, one.answer) == ("Hi", "Hello")
    assert one == same
    assert one.group != other.group


def test_rows_of_different_groups_are_never_duplicates() -> None:
    rows = [Compared(QUESTION, ANSWER, group) for group in (1, 2, 1)]
    found = fingerprints(rows, DuplicatesSection())
    sides = [(row.question, row.answer) for row in rows]

    duplicates = find_duplicates(found, DuplicatesSection(), lambda numbers: [sides[number] for number in numbers], np.ones(3))
    near = find_duplicates(found, DuplicatesSection(exact=False), lambda numbers: [sides[number] for number in numbers], np.ones(3))

    assert duplicates.kept_instead.tolist() == near.kept_instead.tolist() == [0, 1, 0]
    assert duplicates.conflicting == 0


def test_labels_kinds_and_tool_calls_tell_examples_apart() -> None:
    turns = (message("user", "Hi"), message("assistant", "Hello"))
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}
    examples: list[Example] = [
        Conversation(PLACE, turns),
        Labelled(PLACE, turns, True),
        Labelled(PLACE, turns, False),
        Pair(PLACE, turns[:1], "Hello", "Go away"),
        Conversation(PLACE, (turns[0], call)),
    ]

    assert len({compared(example) for example in examples}) == len(examples)
    assert compared(examples[3]).answer == "Hello\nGo away"


@pytest.mark.parametrize(
    ("field", "value"),
    [("near_threshold", 0.4), ("near_threshold", 1.1), ("permutations", 8), ("keep", "last"), ("scope", "answer"), ("fuzzy", True)],
)
def test_the_section_refuses_what_makes_no_sense(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        DuplicatesSection.model_validate({field: value})
