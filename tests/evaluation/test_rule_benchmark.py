"""The answers labelled by hand: enough of them, both halves alike, and judged clearly better than by looking for substrings."""

import importlib.util
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from evaluation.rule_files import load_rules
from evaluation.rule_testing import check_examples

ROOT = Path(__file__).parents[2]


@cache
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rule_grading", ROOT / "tests" / "benchmarks" / "rule_grading.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_there_are_enough_answers_of_every_kind() -> None:
    answers = benchmark().load()
    assert len(answers) >= 400
    assert len({one.answer for one in answers}) == len(answers)
    for half in ("tuned", "held_out"):
        chosen = [one for one in answers if one.half == half]
        assert len(chosen) >= 190
        assert 0.4 < sum(one.keeps for one in chosen) / len(chosen) < 0.6
        assert min(Counter(one.language for one in chosen).values()) >= 90


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_benchmarks_rules_keep_their_examples(language: str) -> None:
    assert check_examples(load_rules(benchmark().FOLDER / f"{language}_rules.yaml")) == []


@pytest.mark.parametrize(("half", "least"), [("tuned", 0.95), ("held_out", 0.85)])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_rules_judge_clearly_better_than_substrings(half: str, least: float, language: str) -> None:
    module = benchmark()
    chosen = [one for one in module.load() if (one.half, one.language) == (half, language)]
    ours, plain = module.score(module.ours, chosen), module.score(module.substring, chosen)
    assert ours.f1 >= least
    assert ours.f1 >= plain.f1 + 0.25
    assert ours.precision > plain.precision
    assert ours.recall > plain.recall
