from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from evaluation.aggregates import METRICS
from evaluation.config import EvaluationSection, GateSection, MetricName


def test_every_metric_name_of_the_recipe_has_a_definition() -> None:
    assert set(METRICS) == set(get_args(MetricName))


def test_the_recipes_gate_section_loads() -> None:
    section = GateSection.model_validate(
        {
            "must": {"critical_failures": {"max": 0}, "rule_pass_rate": {"min": 0.9}},
            "must_not_regress": {"rouge_l": {"by": 0.02}, "perplexity": {"by_ratio": 0.10}, "latency_p95_s": {"by_ratio": 1.0}},
            "should_improve": ["rule_pass_rate"],
            "min_prompts": 60,
            "alpha": 0.05,
        }
    )
    assert section.must["critical_failures"].max == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"must": {"rule_pas_rate": {"min": 1}}},
        {"should_improve": ["speed"]},
        {"mustnt": {}},
        {"alpha": 0.5},
        {"alpha": 0},
        {"min_prompts": 0},
    ],
)
def test_what_the_gate_does_not_know_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GateSection.model_validate(bad)


@pytest.mark.parametrize("section", [EvaluationSection, GateSection])
def test_every_field_has_a_description(section: type[EvaluationSection] | type[GateSection]) -> None:
    assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_sections_are_frozen() -> None:
    with pytest.raises(ValidationError):
        EvaluationSection(suite=Path("x")).concurrency = 3  # type: ignore[misc]
