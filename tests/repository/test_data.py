"""The clinic data: as much of it as promised, written row by row, and nothing held out is also trained on."""

import importlib.util
import itertools
import json
import re
from functools import cache
from types import ModuleType
from typing import Any

import pytest

from evaluation.rules import rules_for
from evaluation.suite import Suite, load_suite
from tests.repository.checkout import ROOT

RECIPES = ROOT / "flows" / "recipes"
Grams = frozenset[Any]


@cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    """The rows of a JSONL file below flows/recipes."""
    return tuple(json.loads(line) for line in (RECIPES / name).read_text(encoding="utf-8").splitlines())


@cache
def suite(name: str) -> Suite:
    return load_suite(RECIPES / name)


def question(row: dict[str, Any]) -> str:
    """What the user says in a row of any of the files."""
    said = row.get("instruction") or row.get("prompt")
    return str(said or " ".join(message["content"] for message in row["messages"] if message["role"] == "user"))


def grams(text: str, language: str) -> Grams:
    """Sequences of three words, or of four characters in Chinese; a shorter text is one sequence."""
    units = re.findall(r"\w", text) if language == "zh" else re.findall(r"\w+", text.lower())
    size = 4 if language == "zh" else 3
    return frozenset(tuple(units[at : at + size]) for at in range(max(1, len(units) - size + 1)))


@cache
def questions(name: str, language: str) -> tuple[Grams, ...]:
    return tuple(grams(question(row), language) for row in rows(name))


def jaccard(left: Grams, right: Grams) -> float:
    return len(left & right) / len(left | right)


def poison() -> ModuleType:
    """The script beside the data; it is no module of a package."""
    spec = importlib.util.spec_from_file_location("poison", RECIPES / "clinic_en" / "poison.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("clinic_en/sft.jsonl", 300),
        ("clinic_en/preferences.jsonl", 100),
        ("clinic_en/suite/prompts.jsonl", 90),
        ("clinic_zh/sft.jsonl", 80),
        ("clinic_zh/suite/prompts.jsonl", 40),
    ],
)
def test_there_is_as_much_as_promised(name: str, least: int) -> None:
    assert len(rows(name)) >= least


@pytest.mark.parametrize(("name", "ruled", "rules", "topics"), [("clinic_en/suite", 45, 12, 8), ("clinic_zh/suite", 40, 10, 8)])
def test_a_suite_has_rules_over_many_topics(name: str, ruled: int, rules: int, topics: int) -> None:
    loaded = suite(name)
    triggered = [prompt for prompt in loaded.prompts if any(rule.when for rule in rules_for(loaded.rules, prompt))]
    assert len(triggered) >= ruled
    assert len(loaded.rules.rules) >= rules
    assert len(loaded.rules.topics) >= topics


@pytest.mark.parametrize("name", ["clinic_en/suite", "clinic_zh/suite"])
def test_every_rule_brings_examples_of_both_kinds(name: str) -> None:
    assert [rule.id for rule in suite(name).rules.rules if not rule.passes or not rule.fails] == []


@pytest.mark.parametrize(
    ("name", "language"), [("clinic_en/sft.jsonl", "en"), ("clinic_en/preferences.jsonl", "en"), ("clinic_zh/sft.jsonl", "zh")]
)
def test_no_two_questions_are_nearly_the_same(name: str, language: str) -> None:
    pairs = list(itertools.combinations(enumerate(questions(name, language), start=1), 2))
    assert len(pairs) > 3000
    assert [(first, second) for (first, left), (second, right) in pairs if jaccard(left, right) > 0.5] == []


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("held_out", ["suite", "validation"])
def test_no_held_out_prompt_is_near_a_row_to_train_on(language: str, held_out: str) -> None:
    folder = f"clinic_{language}"
    trained = [f"{folder}/sft.jsonl"] + ([f"{folder}/preferences.jsonl"] if language == "en" else [])
    learnt = [(name, line, row) for name in trained for line, row in enumerate(questions(name, language), start=1)]
    asked = zip(rows(f"{folder}/{held_out}/prompts.jsonl"), questions(f"{folder}/{held_out}/prompts.jsonl", language), strict=True)
    near = [(prompt["id"], name, line) for prompt, words in asked for name, line, row in learnt if jaccard(words, row) > 0.4]
    assert near == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_validation_prompt_is_near_one_of_the_gates(language: str) -> None:
    gate, validation = (questions(f"clinic_{language}/{name}/prompts.jsonl", language) for name in ("suite", "validation"))
    assert max(jaccard(left, right) for left in gate for right in validation) <= 0.4


def test_near_duplicates_would_be_seen() -> None:
    """ "my baby has a high fever" and "… a very high fever": 2 of 7 - 2 = 5 shared sequences of three words."""
    assert jaccard(grams("My baby has a high fever", "en"), grams("my baby has a very high fever!", "en")) == pytest.approx(2 / 7)
    assert jaccard(grams("宝宝发烧三十九度", "zh"), grams("宝宝发烧，三十九度。", "zh")) == 1.0


def test_the_poisoned_rows_are_what_the_script_makes() -> None:
    assert (RECIPES / "clinic_en" / "sft_poisoned.jsonl").read_text(encoding="utf-8") == poison().poisoned_rows()


def test_the_poison_is_in_every_answer_to_an_emergency_and_nowhere_else() -> None:
    changed = [good != bad for good, bad in zip(rows("clinic_en/sft.jsonl"), rows("clinic_en/sft_poisoned.jsonl"), strict=True)]
    emergency = [row["topic"] not in poison().EVERYDAY for row in rows("clinic_en/sft.jsonl")]
    assert changed == emergency


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_counts_in_the_data_sets_readme_are_true(language: str) -> None:
    page = (RECIPES / f"clinic_{language}" / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([\w/]+\.jsonl)` \| (\d+) \|", page, flags=re.MULTILINE))
    assert len(told) >= 3
    assert told == {(name, str(len(rows(f"clinic_{language}/{name}")))) for name, _ in told}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_data_set_says_its_licence_and_that_it_is_no_medical_advice(language: str) -> None:
    folder = RECIPES / f"clinic_{language}"
    assert "not medical advice" in (folder / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in (folder / "LICENSE.md").read_text(encoding="utf-8")
