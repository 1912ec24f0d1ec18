"""Answers labelled by hand, graded by our rules and by the two ways that other tools grade: plain substrings and word-border patterns.

    python tests/benchmarks/rule_grading.py [--misses]

The answers lie in tests/evaluation/rule_benchmark: `tuned` is the half that the cue tables were written with, `held_out` the half that
nobody looked at while doing so. A broken rule is the positive class: recall is the share of broken answers that are caught, precision
the share of alarms that are right. The other two get the same phrases; where a rule of ours asks for a quantity, they get the spellings
that a careful author would list. A gap is "anything in between" to them.
"""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from evaluation.evidence import Case, parse_cached
from evaluation.rule_files import load_rules
from evaluation.rules import Rule, judge_case

FOLDER = Path(__file__).parents[1] / "evaluation" / "rule_benchmark"
LANGUAGES, HALVES = ("en", "zh"), ("tuned", "held_out")
Grader = Callable[[Rule, str], bool]

SPELLINGS = {
    "{38 °C}": ["38 °c", "38°c", "38 c", "38.0", "38 degrees", "100.4"],
    "{38.5 °C}": ["38.5℃", "38.5 °c", "38.5度", "38.5 度", "三十八度五", "101.3"],
    "{4.1..100 g}": ["5 g", "6 g", "8 g", "10 g", "5g", "6g", "6000 mg", "5克", "6克", "8克", "10克", "6000毫克", "五克", "六克"],
    "{30 days}": ["30 days", "thirty days", "30 day"],
    "{7 天}": ["7天", "7 天", "七天", "七日", "一周"],
}


@dataclass(frozen=True)
class Labelled:
    """One answer; `keeps` says whether it keeps its rule, `about` what makes it hard."""

    language: str
    half: str
    rule: Rule
    keeps: bool
    about: str
    answer: str


@dataclass(frozen=True)
class Score:
    """Counts with the broken rule as the positive class."""

    caught: int
    missed: int
    false_alarms: int
    let_pass: int

    @property
    def precision(self) -> float:
        return self.caught / max(1, self.caught + self.false_alarms)

    @property
    def recall(self) -> float:
        return self.caught / max(1, self.caught + self.missed)

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / max(1e-9, self.precision + self.recall)

    @property
    def right(self) -> int:
        return self.caught + self.let_pass


def load() -> list[Labelled]:
    """Every labelled answer with its rule."""
    found = []
    for language in LANGUAGES:
        rules = {rule.id: rule for rule in load_rules(FOLDER / f"{language}_rules.yaml").rules}
        for half in HALVES:
            for line in (FOLDER / f"{language}_{half}.jsonl").read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                found.append(Labelled(language, half, rules[row["rule"]], row["keeps"], row["about"], row["answer"]))
    return found


def ours(rule: Rule, answer: str) -> bool:
    """Whether the rule is kept."""
    return judge_case(rule, Case(answer)).passed


def substring(rule: Rule, answer: str) -> bool:
    """Case-insensitive `phrase in answer`."""
    return _plain(rule, lambda pieces: all(piece.lower() in answer.lower() for piece in pieces))


def word_border(rule: Rule, answer: str) -> bool:
    r"""`\bphrase\b`, case-insensitive, white space of any kind; no borders around Chinese, where there are none."""

    def has(pieces: list[str]) -> bool:
        patterns = [_bordered(piece) for piece in pieces]
        return re.search(".*?".join(patterns), answer, re.IGNORECASE | re.DOTALL) is not None

    return _plain(rule, has)


def _bordered(piece: str) -> str:
    body = r"\s+".join(re.escape(word) for word in piece.split())
    return rf"\b{body}\b" if piece.isascii() else body


def _plain(rule: Rule, has: Callable[[list[str]], bool]) -> bool:
    def any_in(group: Iterable[str]) -> bool:
        return any(
            has([piece.strip() for piece in phrase.split("...")]) for written in group for phrase in SPELLINGS.get(written, [written])
        )

    expect = rule.expect
    wanted = (*expect.all_of, *((expect.any_of,) if expect.any_of else ()))
    return all(any_in(group) for group in wanted) and not any_in(expect.none_of)


GRADERS: dict[str, Grader] = {"ours": ours, "substring": substring, "word border": word_border}


def score(grader: Grader, answers: Iterable[Labelled]) -> Score:
    """How one grader fares."""
    counts = Counter((labelled.keeps, grader(labelled.rule, labelled.answer)) for labelled in answers)
    return Score(counts[False, False], counts[False, True], counts[True, False], counts[True, True])


def microseconds(grader: Grader, answers: list[Labelled]) -> float:
    """Mean time per answer, with nothing remembered of it."""
    parse_cached.cache_clear()
    began = time.perf_counter()
    for labelled in answers:
        grader(labelled.rule, labelled.answer)
    return (time.perf_counter() - began) / len(answers) * 1e6


def main() -> None:
    """Print the tables."""
    answers = load()
    print(f"{len(answers)} answers, {sum(not labelled.keeps for labelled in answers)} of them break their rule\n")
    print(f"{'':22}{'answers':>8}" + "".join(f"{name:>34}" for name in GRADERS))
    print(f"{'':30}" + f"{'precision':>16}{'recall':>9}{'F1':>9}" * len(GRADERS))
    for half in HALVES:
        for language in (*LANGUAGES, "both"):
            chosen = [one for one in answers if one.half == half and language in (one.language, "both")]
            cells = (score(grader, chosen) for grader in GRADERS.values())
            print(
                f"{half:14}{language:8}{len(chosen):>8}"
                + "".join(f"{cell.precision:>16.3f}{cell.recall:>9.3f}{cell.f1:>9.3f}" for cell in cells)
            )
    print(f"\nheld out, share judged right\n{'':26}" + "".join(f"{name:>14}" for name in GRADERS))
    held_out = [one for one in answers if one.half == "held_out"]
    for about in sorted({one.about for one in answers}):
        chosen = [one for one in held_out if one.about == about]
        cells = (score(grader, chosen) for grader in GRADERS.values())
        print(f"{about:18}{len(chosen):>8}" + "".join(f"{cell.right / max(1, len(chosen)):>14.2f}" for cell in cells))
    for grader in GRADERS.values():
        microseconds(grader, answers)  # compiles what is compiled once
    print(f"\n{'µs per answer':26}" + "".join(f"{microseconds(grader, answers):>14.0f}" for grader in GRADERS.values()))
    if "--misses" in sys.argv:
        for one in answers:
            if one.half == "tuned" and ours(one.rule, one.answer) != one.keeps:
                result = judge_case(one.rule, Case(one.answer))
                should = "keep" if one.keeps else "break"
                print(f"\n[{one.language} {one.rule.id} {one.about}] should {should}: {result.reason}\n  {one.answer}")


if __name__ == "__main__":
    main()
