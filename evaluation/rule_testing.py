"""Tests rules: by their own examples, by mutants of these, and by texts that make a bad regular expression run without end.

Pure; `tunegate rules test` prints what is found here. Knows nothing of prompts and servers. Next: `mutations.py`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from evaluation.errors import PatternTooSlow
from evaluation.evidence import Case
from evaluation.mutations import Mutant, Mutation, mutants_of
from evaluation.patterns import timed
from evaluation.rules import Example, Rule, RuleBook, example_case, judge_case

K = TypeVar("K", bound=str)
_STRETCHED = 4000  # characters; a pattern that doubles its work with each of them is found long before


@dataclass(frozen=True)
class Trial:
    """One mutant and what its rule said."""

    rule_id: str
    mutant: Mutant
    caught: bool
    reason: str


@dataclass(frozen=True)
class TestReport:
    """What a rule book is worth. `problems`: examples that lie, and patterns that run without end."""

    __test__ = False  # pytest takes a class of this name for tests

    rules: int
    examples: int
    problems: tuple[str, ...]
    trials: tuple[Trial, ...]

    @property
    def catch_rate(self) -> float:
        """Share of the mutants that were judged right; 1 where there are none."""
        return _rate(self.trials)

    def by_mutation(self) -> dict[Mutation, tuple[int, int]]:
        """Mutation -> (judged right, made)."""
        return _tally((trial.mutant.mutation, trial.caught) for trial in self.trials)

    def by_rule(self) -> dict[str, tuple[int, int]]:
        """Rule -> (judged right, made)."""
        return _tally((trial.rule_id, trial.caught) for trial in self.trials)

    @property
    def survivors(self) -> tuple[Trial, ...]:
        """The mutants that were judged wrong."""
        return tuple(trial for trial in self.trials if not trial.caught)


def check_examples(book: RuleBook) -> list[str]:
    """Every example that its own rule judges otherwise than it says, and every pattern that runs too long; empty when all hold."""
    return [problem for rule in book.rules for problem in (*_lies(rule), *_endless(rule))]


def run_tests(book: RuleBook) -> TestReport:
    """Judge every example and every mutant of those that hold."""
    trials = tuple(trial for rule in book.rules for trial in _trials(rule))
    examples = sum(len(rule.passes) + len(rule.fails) for rule in book.rules)
    return TestReport(len(book.rules), examples, tuple(check_examples(book)), trials)


def _examples(rule: Rule) -> Iterator[tuple[bool, int, str | Example]]:
    for keeps, examples in ((True, rule.passes), (False, rule.fails)):
        for number, example in enumerate(examples, start=1):
            yield keeps, number, example


def _lies(rule: Rule) -> Iterator[str]:
    for keeps, number, example in _examples(rule):
        key = f"{'passes' if keeps else 'fails'}[{number}]"
        try:
            result = judge_case(rule, example_case(example))
        except PatternTooSlow as error:
            yield f"rule {rule.id}: {key} cannot be judged: {error.what}"
            continue
        if result.passed != keeps:
            yield f"rule {rule.id}: {key} does not: {result.reason} — {example_case(example).answer!r}"


def _endless(rule: Rule) -> Iterator[str]:
    """Patterns that a long text of the example's own characters brings to their knees."""
    for phrase in rule.expect.groups.every_phrase:
        if len(phrase) > 2 and phrase[0] == phrase[-1] == "/":
            try:
                for text in _stretched(rule, phrase):
                    timed(phrase[1:-1]).matches(text)
            except PatternTooSlow as error:
                yield f"rule {rule.id}: {error.what}; avoid a repetition inside a repetition, such as (a+)+"


def _stretched(rule: Rule, pattern: str) -> Iterator[str]:
    for _, _, example in _examples(rule):
        answer = example_case(example).answer.lower()
        yield (answer * (_STRETCHED // max(1, len(answer)) + 1))[:_STRETCHED] + "!"
    for character in sorted({*pattern.lower()} | {"a", "0", " "}):
        yield character * 64 + "\x00"
        yield character * _STRETCHED + "\x00"


def _trials(rule: Rule) -> Iterator[Trial]:
    for keeps, _, example in _examples(rule):
        case = example_case(example)
        try:
            if judge_case(rule, case).passed != keeps:
                continue  # a lie has no mutants
            for mutant in mutants_of(rule, case, keeps=keeps):
                result = judge_case(rule, Case(mutant.answer, case.said, case.system, case.reference))
                yield Trial(rule.id, mutant, result.passed == mutant.keeps, result.reason)
        except PatternTooSlow:
            return  # named among the problems


def _tally(pairs: Iterable[tuple[K, bool]]) -> dict[K, tuple[int, int]]:
    made, caught = Counter[K](), Counter[K]()
    for key, right in pairs:
        made[key] += 1
        caught[key] += right
    return {key: (caught[key], count) for key, count in sorted(made.items())}


def _rate(trials: tuple[Trial, ...]) -> float:
    return sum(trial.caught for trial in trials) / len(trials) if trials else 1.0
