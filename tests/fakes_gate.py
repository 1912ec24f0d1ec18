"""Gate policies, cards of many equal answers, and a way to one condition: for the tests of the gate."""

from evaluation.config import GateSection
from evaluation.records import AnswerRecord, Condition, Outcome, Scorecard, Verdict
from tests.fakes_evaluation import make_answer, make_card

PASS, WAIT, FAIL, ERROR = Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL, Outcome.ERROR


def answers(count: int, broken: int = 0, **kwargs: object) -> list[AnswerRecord]:
    """`count` answers, of which the last `broken` break the critical rule."""
    return [make_answer(number, broken="critical" if number >= count - broken else None, **kwargs) for number in range(count)]  # type: ignore[arg-type]


def card(count: int, broken: int = 0, *, subject: str = "candidate", **kwargs: object) -> Scorecard:
    return make_card(answers(count, broken, **kwargs), subject=subject)


def policy(**kwargs: object) -> GateSection:
    return GateSection.model_validate({"min_prompts": 10, "resamples": 200, **kwargs})


def find(verdict: Verdict, name: str) -> Condition:
    return next(condition for condition in verdict.conditions if condition.name == name)
