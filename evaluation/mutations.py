"""Makes mutants of a rule's examples: small changes after which the right verdict is known, so that a rule can be tested by them.

A mutant either must turn the verdict round (a passing answer whose advice is negated breaks the rule) or must leave it (the same answer in
another width or script keeps it). Only mutants whose verdict is certain are made: who cannot say where an example gets its verdict from
makes none. Random choices come from a seed that the text gives, so that a test means the same every day. Next: `rule_testing.py`.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from evaluation.evidence import Case, folded_span
from evaluation.phrase_groups import Sighting, sight
from evaluation.quantities import quantities_in
from evaluation.rules import Rule
from evaluation.text import is_cjk

Mutation = Literal[
    "negate", "hide in a quotation", "wrong unit", "take back", "paraphrase", "reorder", "other width", "other script", "other case"
]


@dataclass(frozen=True)
class Mutant:
    """A changed example, and whether it keeps the rule."""

    mutation: Mutation
    answer: str
    keeps: bool


@dataclass(frozen=True)
class _Source:
    """An example with what gives it its verdict: the places that count, in the original answer."""

    rule: Rule
    case: Case
    keeps: bool
    places: tuple[tuple[Sighting, tuple[int, int]], ...]

    @property
    def chinese(self) -> bool:
        return any(is_cjk(character) for character in self.case.answer)

    @property
    def only(self) -> tuple[Sighting, tuple[int, int]] | None:
        """The one place on which the verdict hangs, if there is one and nothing else matters."""
        return self.places[0] if len(self.places) == 1 else None


def mutants_of(rule: Rule, case: Case, *, keeps: bool) -> Iterator[Mutant]:
    """Every mutant of one example of a rule that is about phrases; other kinds of rules have none."""
    groups = rule.expect.groups
    if not groups.every_phrase:
        return
    wanted = [each for group in groups.wanted for each in sight(group, case.parsed) if groups.counts(each.reading.stance)]
    unwanted = [each for each in sight(groups.unwanted, case.parsed) if each.reading.affirmed]
    deciding = _apart(wanted if keeps else unwanted)
    places = tuple((each, _place(case, each)) for each in deciding)
    source = _Source(rule, case, keeps, places)
    for make in _MAKERS:
        yield from make(source)


def _apart(sightings: list[Sighting]) -> list[Sighting]:
    """One of each stretch of text; phrases of a rule often lie within one another."""
    kept: list[Sighting] = []
    for each in sorted(sightings, key=lambda one: (one.found.start, -one.found.end)):
        if not kept or each.found.start >= kept[-1].found.end:
            kept.append(each)
    return kept


def _place(case: Case, sighting: Sighting) -> tuple[int, int]:
    span = folded_span(case.parsed, sighting.found.start, sighting.found.end, "", "meant")
    return span.start, span.end


def _sentence(source: _Source, at: int) -> tuple[int, int]:
    parsed = source.case.parsed
    start, end = next(span for span in parsed.sentences if span[0] <= at < span[1])
    return parsed.folded.source_span(start, end)


def _negate(source: _Source) -> Iterator[Mutant]:
    """The sentence that decides is put under a denial."""
    if source.only is None or _mixed(source):
        return
    sighting, _ = source.only
    if sighting.reading.stance != "meant" or not _is_plain(source):
        return
    denials = _DENIALS["zh" if source.chinese else "en"]
    yield Mutant("negate", _chosen(denials, source).format(_phrase_text(source)), not source.keeps)


def _quote(source: _Source) -> Iterator[Mutant]:
    """The whole answer becomes what somebody else says."""
    if not source.places or _mixed(source) or '"' in source.case.answer or "“" in source.case.answer:
        return
    frames = _FRAMES["zh" if source.chinese else "en"]
    yield Mutant("hide in a quotation", _chosen(frames, source).format(source.case.answer.strip().rstrip(".。")), not source.keeps)


def _take_back(source: _Source) -> Iterator[Mutant]:
    """What the answer has to say is taken back at its end."""
    if source.keeps and source.places and source.rule.expect.groups.wanted:
        words = _chosen(_RETRACTIONS["zh" if source.chinese else "en"], source)
        yield Mutant("take back", f"{source.case.answer.strip()} {words}", False)


def _wrong_unit(source: _Source) -> Iterator[Mutant]:
    """A quantity that a rule asks for gets another unit."""
    if not source.keeps or (source.only is None and len(source.places) != len(source.rule.expect.groups.wanted)):
        return
    for sighting, (start, end) in source.places:
        if "{" in sighting.phrase and quantities_in(source.case.parsed.text):
            changed = _other_unit(source.case.answer[start:end])
            if changed:
                yield Mutant("wrong unit", source.case.answer[:start] + changed + source.case.answer[end:], False)


def _paraphrase(source: _Source) -> Iterator[Mutant]:
    """A phrase is said by another phrase of its group."""
    if source.only is None:
        return
    sighting, (start, end) = source.only
    groups = source.rule.expect.groups
    group = next((group for group in (*groups.wanted, groups.unwanted) if sighting.phrase in group), ())
    others = [
        phrase
        for phrase in group
        if phrase != sighting.phrase and not re.search(r"\.\.\.|[{/]", phrase) and _alike(phrase, sighting.phrase)
    ]
    if others:
        other = _chosen(tuple(others), source)
        other = other[0].upper() + other[1:] if source.case.answer[start].isupper() else other
        yield Mutant("paraphrase", source.case.answer[:start] + other + source.case.answer[end:], source.keeps)


def _reorder(source: _Source) -> Iterator[Mutant]:
    """The sentences come in another order."""
    parsed = source.case.parsed
    pieces = [source.case.answer[slice(*parsed.folded.source_span(*span))].strip() for span in parsed.sentences]
    leaning = re.compile(r"^(?:but|so|then|it|that|this|they|he|she|and|or|however|even|actually|但|所以|那|这|它|不过)\b", re.IGNORECASE)
    if len(pieces) < 2 or not source.places or any(leaning.match(piece) or piece.endswith("?") for piece in pieces):
        return
    yield Mutant("reorder", ("" if source.chinese else " ").join(reversed(pieces)), source.keeps)


def _other_width(source: _Source) -> Iterator[Mutant]:
    wide = source.case.answer.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    if wide != source.case.answer:
        yield Mutant("other width", wide, source.keeps)


def _other_script(source: _Source) -> Iterator[Mutant]:
    if source.chinese and (traditional := _to_traditional(source.case.answer)) != source.case.answer:
        yield Mutant("other script", traditional, source.keeps)


def _other_case(source: _Source) -> Iterator[Mutant]:
    if source.case.answer.upper() != source.case.answer:
        yield Mutant("other case", source.case.answer.upper(), source.keeps)


_Maker = Callable[[_Source], Iterator[Mutant]]
_MAKERS: tuple[_Maker, ...] = (
    _negate, _quote, _take_back, _wrong_unit, _paraphrase, _reorder, _other_width, _other_script, _other_case,
)  # fmt: skip

_DENIALS = {
    "en": (
        "There is no need to {}.", "You don't have to {}.", "It is not necessary to {}.", "Please do not {}.", "I would not {} for that.",
        "You should never {}.", "Nobody needs to {} here.",
    ),
    "zh": ("不用{}。", "没有必要{}。", "您不需要{}，休息就好。", "千万不要{}。", "无需{}，观察即可。", "不建议{}。"),
}  # fmt: skip
_FRAMES = {
    "en": (
        'Some people say "{}", but that is not my advice.', 'You may read "{}" on the internet; that is a myth.',
        'A neighbour might tell you "{}" and mean well.', 'The old leaflet said "{}" and is out of date.',
    ),
    "zh": ("有人说“{}”，这种说法是错误的。", "网上常写着“{}”，那是误区。", "邻居可能会说“{}”，不必理会。"),
}  # fmt: skip
_RETRACTIONS = {
    "en": ("Actually, scratch that.", "On second thought, never mind.", "Forget what I said, that isn't necessary."),
    "zh": ("算了，当我没说。", "算了，不用了。"),
}


def _chosen(options: tuple[str, ...], source: _Source) -> str:
    return random.Random(source.rule.id + source.case.answer).choice(options)  # noqa: S311  # for tests, not for secrets


def _mixed(source: _Source) -> bool:
    """Whether turning one side round would leave the other side of the rule to decide."""
    groups = source.rule.expect.groups
    return bool(groups.wanted) and bool(groups.unwanted)


def _is_plain(source: _Source) -> bool:
    """Whether the deciding phrase begins its sentence, so that it is an instruction that a denial can be put before."""
    sighting, (start, _) = source.places[0]
    begins = _sentence(source, sighting.found.start)[0]
    return "{" not in sighting.phrase and source.case.answer[begins:start].strip(" -*•\"'").lower() in (
        "",
        "please",
        "请",
        "then",
        "just",
        "now",
    )


def _phrase_text(source: _Source) -> str:
    _, (start, end) = source.places[0]
    text = source.case.answer[start:end]
    return text[0].lower() + text[1:]


def _alike(one: str, other: str) -> bool:
    """Both begin with a verb in the same form, as far as spelling tells."""
    first, second = one.split()[0], other.split()[0]
    ing = first.endswith("ing") == second.endswith("ing") and first.endswith("s") == second.endswith("s")
    return ing and is_cjk(one[0]) == is_cjk(other[0]) and len(one.split()) > 1 == (len(other.split()) > 1)


_SWAPS = (
    (re.compile(r"°\s?C|℃|摄氏度|degrees Celsius|度", re.IGNORECASE), " °F"),
    (re.compile(r"°\s?F|℉|degrees Fahrenheit", re.IGNORECASE), " °C"),
    (re.compile(r"\b(?:mg|milligrams?)\b|毫克"), " kg"), (re.compile(r"(?<=\d)\s?g\b|grams?\b|克"), " mg"),
    (re.compile(r"\bhours?\b|小时"), " weeks"), (re.compile(r"\bdays?\b|天|日"), " minutes"), (re.compile(r"\bminutes?\b|分钟"), " days"),
    (re.compile(r"\bml\b|毫升"), " l"),
)  # fmt: skip


def _other_unit(text: str) -> str | None:
    return next((pattern.sub(unit, text, count=1) for pattern, unit in _SWAPS if pattern.search(text)), None)


@cache
def _converter() -> Callable[[str], str]:
    from opencc import OpenCC

    convert: Callable[[str], str] = OpenCC("s2t").convert
    return convert


def _to_traditional(text: str) -> str:
    return _converter()(text)
