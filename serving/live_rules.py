"""The suites' rules held against what somebody really asked: which of them hold for it, and which the answer breaks.

A rule for some topics holds where the prompt is one of the first suite's, nearly; a guess would break rules that nobody broke. Rules
without topics hold for every prompt. Pure. Next: `live_check.py`, which asks of live answers, and `flows/collect_drafts.py`, of kept ones.
"""

from collections.abc import Sequence

from evaluation.rules import RuleResult, judge_answer
from evaluation.suite import Message, Prompt, Suite
from serving.live_drift import Topics

_ROLES = frozenset({"system", "user", "assistant"})


class LiveRules:
    """The rules of a release's suites, its own first."""

    def __init__(self, suites: Sequence[Suite]) -> None:
        self._suites = suites
        self.topics = Topics(suites[0].prompts)

    def broken(self, turns: Sequence[tuple[str, str]], answer: str) -> list[RuleResult]:
        """The rules that an answer breaks, as (role, content) were said before it.

        Raises:
            PatternTooSlow: a rule ran out of time.
        """
        said = tuple(Message(role=role, content=text) for role, text in turns if role in _ROLES)
        messages = said or (Message(role="user", content=""),)
        same = self.topics.same(last_question(turns))
        own = Prompt(id="live", topic=same.topic if same else "", messages=messages, tags=same.tags if same else ())
        other = own.model_copy(update={"topic": "", "tags": ()})
        prompts = (own, *[other] * len(self._suites))
        return [
            result
            for suite, prompt in zip(self._suites, prompts, strict=False)
            for result in judge_answer(suite.rules, prompt, answer)
            if not result.passed
        ]


def last_question(turns: Sequence[tuple[str, str]]) -> str:
    """What the user said last."""
    return next((text for role, text in reversed(turns) if role == "user"), "")
