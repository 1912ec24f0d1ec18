"""Rules: what an answer must or must not be, judged by what is meant, not by what merely stands there.

A rule has a `when` (topics, tags, or phrases in the prompt), an `expect`, a severity, and its own examples. Pure; the same rules judge
offline, in a canary and in production. Rule files are read by `rule_files.py` and tested by `rule_testing.py`. Next: `expectations.py`.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from evaluation.errors import PatternTooSlow
from evaluation.evidence import Case, Span, parse_cached
from evaluation.expectations import Expect, PhraseText, judge_expectation
from evaluation.phrases import compile_phrase, find

Severity = Literal["critical", "major", "minor"]
SUITE_MARK = ": "  # between the name of an added suite and its topics, tags and ids; no written topic holds it
SEVERITIES: tuple[Severity, ...] = ("critical", "major", "minor")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class When(_Frozen):
    """Which prompts a rule holds for: those of a topic, of a tag, or that contain a phrase. Any of them is enough."""

    topics: tuple[str, ...] = Field(default=(), description="topics of the suite's prompts")
    tags: tuple[str, ...] = Field(default=(), description="tags of the suite's prompts")
    prompt_matches: tuple[PhraseText, ...] | None = Field(
        default=None, description="phrases looked for in the last user message, meant or not"
    )
    suite: str | None = Field(default=None, exclude_if=lambda suite: suite is None, description="set when suites are put together")


class Example(_Frozen):
    """An answer with the conversation that it belongs to, for rules that look at both."""

    answer: str
    prompt: str = ""
    system: str = ""
    reference: str = ""


class Rule(_Frozen):
    """One tested rule."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=80, description="lower case, digits, - and _; unique in its file")
    severity: Severity = Field(description="critical: zero tolerance at the gate")
    why: str = Field(min_length=1, description="one sentence for the person who reads the report")
    when: When | None = Field(default=None, description="no `when`: the rule holds for every prompt")
    expect: Expect
    passes: tuple[str | Example, ...] = Field(min_length=1, description="answers that keep the rule")
    fails: tuple[str | Example, ...] = Field(min_length=1, description="answers that break it")


class RuleBook(_Frozen):
    """A rule file."""

    version: int = Field(ge=1, description="raised by hand when a rule changes its meaning")
    rules: tuple[Rule, ...] = Field(min_length=1)

    @property
    def topics(self) -> frozenset[str]:
        """Every topic that some rule names."""
        return frozenset(topic for rule in self.rules if rule.when for topic in rule.when.topics)


class RuleResult(_Frozen):
    """How one answer fares under one rule."""

    rule_id: str = Field(description="as in the rule file")
    severity: Severity = Field(description="critical: zero tolerance at the gate")
    passed: bool = Field(description="whether the answer keeps the rule")
    reason: str = Field(description="one sentence")
    evidence: tuple[Span, ...] = Field(default=(), description="where in the answer")


class Turn(Protocol):
    """One message of a conversation."""

    @property
    def role(self) -> str: ...

    @property
    def content(self) -> str: ...


class Asked(Protocol):
    """What a rule needs to know of a prompt."""

    @property
    def topic(self) -> str: ...

    @property
    def tags(self) -> tuple[str, ...]: ...

    @property
    def text(self) -> str: ...

    @property
    def messages(self) -> Sequence[Turn]: ...

    @property
    def reference(self) -> str: ...


def rules_for(book: RuleBook, prompt: Asked) -> tuple[Rule, ...]:
    """The rules that hold for a prompt, in file order."""
    return tuple(rule for rule in book.rules if rule.when is None or _holds(rule.when, prompt))


def judge_answer(book: RuleBook, prompt: Asked, answer: str) -> tuple[RuleResult, ...]:
    """Judge one answer under every rule that holds for its prompt, in file order.

    Raises:
        PatternTooSlow: a rule's regular expression ran out of time; the answer is not judged at all.
    """
    case = _case(prompt, answer)
    return tuple(judge_case(rule, case) for rule in rules_for(book, prompt))


def judge_case(rule: Rule, case: Case) -> RuleResult:
    """Judge one answer under one rule."""
    try:
        judgement = judge_expectation(rule.expect, case)
    except PatternTooSlow as error:
        error.add_note(f"rule {rule.id}")
        raise
    reason = "; ".join(judgement.reasons) or "is what it must be and nothing that it must not"
    return RuleResult(
        rule_id=rule.id,
        severity=rule.severity,
        passed=not judgement.reasons,
        reason=reason,
        evidence=tuple(dict.fromkeys(judgement.evidence)),
    )


def example_case(example: str | Example) -> Case:
    """An example of a rule, ready to be judged."""
    if isinstance(example, str):
        return Case(example)
    return Case(example.answer, (example.prompt,) if example.prompt else (), example.system, example.reference)


def _case(prompt: Asked, answer: str) -> Case:
    system = next((turn.content for turn in prompt.messages if turn.role == "system"), "")
    return Case(answer, tuple(turn.content for turn in prompt.messages if turn.role != "system"), system, prompt.reference)


def _holds(when: When, prompt: Asked) -> bool:
    if when.suite is not None and when.suite != prompt.topic.rpartition(SUITE_MARK)[0]:
        return False
    if not (when.topics or when.tags or when.prompt_matches):
        return True
    if prompt.topic in when.topics or not {*when.tags}.isdisjoint(prompt.tags):
        return True
    if not when.prompt_matches:
        return False
    parsed = parse_cached(prompt.text)
    return any(next(find(compile_phrase(phrase), parsed.text, parsed.sentences), None) for phrase in when.prompt_matches)
