"""Keyword rules: what an answer must or must not say, judged by phrases that are meant, not merely present.

A rule has a `when` (topics, or phrases in the prompt), an `expect` (all_of, any_of, none_of), a severity, and its own examples:
`check_examples` proves that the rule passes and fails what its author says it does. Pure; the same rules judge offline, in a
canary and in production. How phrases are found: `phrases.py`; when they are meant: `negation.py`. Next: `suite.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluation.documents import Document, explain, read_yaml
from evaluation.errors import SuiteError
from evaluation.negation import Parsed, Reading, parse, read
from evaluation.phrases import Found, compile_phrase, find

Severity = Literal["critical", "major", "minor"]
SEVERITIES: tuple[Severity, ...] = ("critical", "major", "minor")


def _phrase(written: str) -> str:
    compile_phrase(written)
    return written


PhraseText = Annotated[str, Field(max_length=200), AfterValidator(_phrase)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class When(_Frozen):
    """Which prompts a rule holds for: those of a topic, or those that contain a phrase. Either is enough."""

    topics: tuple[str, ...] = Field(default=(), description="topics of the suite's prompts")
    prompt_matches: tuple[PhraseText, ...] | None = Field(
        default=None, description="phrases looked for in the last user message, meant or not"
    )


class Expect(_Frozen):
    """What the answer must say. A phrase counts only where it is meant."""

    all_of: tuple[tuple[PhraseText, ...], ...] = Field(default=(), description="every group must be met; any phrase of a group meets it")
    any_of: tuple[PhraseText, ...] = Field(default=(), description="at least one of these phrases")
    none_of: tuple[PhraseText, ...] = Field(default=(), description="none of these phrases, unless denied")

    @model_validator(mode="after")
    def _expects_something(self) -> Self:
        if not (self.all_of or self.any_of or self.none_of):
            raise ValueError("give at least one of all_of, any_of, none_of; a rule that expects nothing is always met")
        if any(not group for group in self.all_of):
            raise ValueError("a group of all_of is empty and can never be met")
        return self


class Rule(_Frozen):
    """One tested rule."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=80, description="lower case, digits, - and _; unique in its file")
    severity: Severity = Field(description="critical: zero tolerance at the gate")
    why: str = Field(min_length=1, description="one sentence for the person who reads the report")
    when: When | None = Field(default=None, description="no `when`: the rule holds for every prompt")
    expect: Expect
    passes: tuple[str, ...] = Field(min_length=1, description="answers that keep the rule")
    fails: tuple[str, ...] = Field(min_length=1, description="answers that break it")


class RuleBook(_Frozen):
    """A rule file."""

    version: int = Field(ge=1, description="raised by hand when a rule changes its meaning")
    rules: tuple[Rule, ...] = Field(min_length=1)

    @property
    def topics(self) -> frozenset[str]:
        """Every topic that some rule names."""
        return frozenset(topic for rule in self.rules if rule.when for topic in rule.when.topics)


class Span(_Frozen):
    """Characters [start, end) of the original answer.

    `role`: meant (asked for, and said), denied (asked for, but turned round, so it does not count), forbidden (must not be said).
    """

    start: int = Field(ge=0)
    end: int = Field(ge=0)
    text: str
    phrase: str = Field(description="as the rule writes it")
    role: Literal["meant", "denied", "forbidden"]


class RuleResult(_Frozen):
    """How one answer fares under one rule."""

    rule_id: str
    severity: Severity
    passed: bool
    reason: str = Field(description="one sentence")
    evidence: tuple[Span, ...] = ()


class Asked(Protocol):
    """What a rule needs to know of a prompt: its topic and its last user message."""

    @property
    def topic(self) -> str: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class _Sighting:
    phrase: str
    found: Found
    reading: Reading


def load_rules(path: Path) -> RuleBook:
    """Read a rule file.

    Raises:
        SuiteError: with every problem, each as `file:line: rule id key: what`.
    """
    problems: list[str] = []
    document = read_yaml(path, problems)
    book = _validate(document, problems) if document else None
    if problems or book is None:
        raise SuiteError(problems)
    return book


def rules_for(book: RuleBook, prompt: Asked) -> tuple[Rule, ...]:
    """The rules that hold for a prompt, in file order."""
    return tuple(rule for rule in book.rules if rule.when is None or prompt.topic in rule.when.topics or _in_prompt(rule.when, prompt.text))


def judge_answer(book: RuleBook, prompt: Asked, answer: str) -> tuple[RuleResult, ...]:
    """Judge one answer under every rule that holds for its prompt, in file order."""
    parsed = _parse(answer)
    return tuple(_judge(rule, parsed) for rule in rules_for(book, prompt))


def check_examples(book: RuleBook) -> list[str]:
    """Every example that its own rule judges otherwise than it says; empty when all hold."""
    problems = []
    for rule in book.rules:
        for expected, examples in ((True, rule.passes), (False, rule.fails)):
            for number, example in enumerate(examples, start=1):
                result = _judge(rule, _parse(example))
                if result.passed != expected:
                    key = "passes" if expected else "fails"
                    problems.append(f"rule {rule.id}: {key}[{number}] does not: {result.reason} — {example!r}")
    return problems


@lru_cache(maxsize=1024)
def _parse(answer: str) -> Parsed:
    return parse(answer)


def _in_prompt(when: When, prompt: str) -> bool:
    parsed = _parse(prompt)
    return any(next(find(compile_phrase(phrase), parsed.text, parsed.sentences), None) for phrase in when.prompt_matches or ())


def _judge(rule: Rule, parsed: Parsed) -> RuleResult:
    evidence: list[Span] = []
    reasons: list[str] = []
    for group in (*rule.expect.all_of, *((rule.expect.any_of,) if rule.expect.any_of else ())):
        sightings = list(_sight(group, parsed))
        meant = [sighting for sighting in sightings if sighting.reading.affirmed]
        evidence += [_span(parsed, sighting, "meant" if meant else "denied") for sighting in meant or sightings]
        if not meant:
            reasons.append(_missing(group, sightings, parsed))
    for sighting in _sight(rule.expect.none_of, parsed):
        if sighting.reading.affirmed:
            span = _span(parsed, sighting, "forbidden")
            evidence.append(span)
            reasons.append(f"says '{span.text}', which it must not")
    reason = "; ".join(reasons) if reasons else "says what it must and nothing it must not"
    return RuleResult(rule_id=rule.id, severity=rule.severity, passed=not reasons, reason=reason, evidence=tuple(dict.fromkeys(evidence)))


def _sight(phrases: tuple[str, ...], parsed: Parsed) -> Iterator[_Sighting]:
    for written in phrases:
        for found in find(compile_phrase(written), parsed.text, parsed.sentences):
            yield _Sighting(written, found, read(parsed, found))


def _missing(group: tuple[str, ...], sightings: list[_Sighting], parsed: Parsed) -> str:
    if sightings:
        first = sightings[0]
        cue = first.reading.cue
        by = f" ('{parsed.text[cue[0] : cue[1]].strip()}')" if cue else ""
        return f"says '{_span(parsed, first, 'denied').text}' only to deny it{by}"
    listed = ", ".join(f"'{phrase}'" for phrase in group[:4]) + (f" or {len(group) - 4} more" if len(group) > 4 else "")
    return f"never says {listed}"


def _span(parsed: Parsed, sighting: _Sighting, role: Literal["meant", "denied", "forbidden"]) -> Span:
    start, end = parsed.folded.source_span(sighting.found.start, sighting.found.end)
    return Span(start=start, end=end, text=parsed.folded.source[start:end], phrase=sighting.phrase, role=role)


def _validate(document: Document, problems: list[str]) -> RuleBook | None:
    value = document.value
    if not isinstance(value, dict) or not isinstance(value.get("rules"), list):
        problems.append(f"{document.path}:1: a rule file has the keys `version` and `rules` (a list)")
        return None
    rules = _validate_each(document, value["rules"], problems)
    _same_ids(document, rules, problems)
    try:
        return RuleBook.model_validate({**value, "rules": list(rules.values())})
    except ValidationError as error:
        problems += explain(error, RuleBook, document)
        return None


def _validate_each(document: Document, values: list[object], problems: list[str]) -> dict[int, Rule]:
    """Rule by rule, so that each complaint carries its rule's id; keys are positions in the file."""
    rules = {}
    for position, value in enumerate(values):
        subject = f"rule {value['id']}" if isinstance(value, dict) and "id" in value else f"rule number {position + 1}"
        try:
            rules[position] = Rule.model_validate(value)
        except ValidationError as error:
            problems += explain(error, Rule, document, ("rules", position), subject)
    return rules


def _same_ids(document: Document, rules: dict[int, Rule], problems: list[str]) -> None:
    first: dict[str, int] = {}
    for position, rule in rules.items():
        if rule.id in first:
            here, there = document.where(("rules", position)), document.where(("rules", first[rule.id]))
            problems.append(f"{here}: rule {rule.id} is there twice; the first is in {there}")
        first.setdefault(rule.id, position)
