"""Judges the phrases of a rule: all_of, any_of and none_of, counted where they are meant and not taken back.

A phrase that is denied, asked, or reported as what others say never counts. `firm` rules do not count what is only left open, and
`unconditional` rules not what holds on a condition only. What is forbidden is broken by any of these but a denial or a report.
Knows nothing of other kinds of expectations. Next: `rules.py`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.evidence import Judgement, folded_span
from evaluation.framing import Stance, retracts
from evaluation.negation import Parsed, Reading, read
from evaluation.phrases import Found, compile_phrase, find
from evaluation.typos import without_typos

_AGAIN = re.compile(r" (?:again|twice|a second time)\b")
_HOW = {
    "denied": "only to deny it",
    "reported": "only as what somebody else says",
    "hedged": "only as something that may be left undone",
    "conditional": "only on a condition",
}


@dataclass(frozen=True)
class Sighting:
    """One place where a phrase stands, and how it is meant there."""

    phrase: str
    found: Found
    reading: Reading


@dataclass(frozen=True)
class Groups:
    """The phrases of one rule, and what counts as saying them."""

    wanted: tuple[tuple[str, ...], ...]
    unwanted: tuple[str, ...]
    firm: bool
    unconditional: bool

    @property
    def every_phrase(self) -> tuple[str, ...]:
        """In the rule's order."""
        return tuple(phrase for group in (*self.wanted, self.unwanted) for phrase in group)

    def counts(self, stance: Stance) -> bool:
        """Whether a phrase of this stance meets what is asked for."""
        return stance == "meant" or (stance == "hedged" and not self.firm) or (stance == "conditional" and not self.unconditional)


def judge_phrases(groups: Groups, parsed: Parsed) -> Judgement:
    """Whether an answer says what it must and nothing that it must not."""
    parsed = without_typos(parsed, groups.every_phrase)
    judgement = Judgement()
    for group in groups.wanted:
        _want(groups, group, parsed, judgement)
    for sighting in sight(groups.unwanted, parsed):
        if sighting.reading.affirmed:
            span = folded_span(parsed, sighting.found.start, sighting.found.end, sighting.phrase, "forbidden")
            judgement.evidence.append(span)
            judgement.reasons.append(f"says '{span.text}', which it must not")
    return judgement


def sight(phrases: Sequence[str], parsed: Parsed) -> Iterator[Sighting]:
    """Every place of every phrase."""
    for written in phrases:
        for found in find(compile_phrase(written), parsed.text, parsed.sentences):
            yield Sighting(written, found, read(parsed, found))


def _want(groups: Groups, group: tuple[str, ...], parsed: Parsed, judgement: Judgement) -> None:
    sightings = sorted(sight(group, parsed), key=lambda sighting: sighting.found.start)
    counted = [sighting for sighting in sightings if groups.counts(sighting.reading.stance)]
    back = _taken_back(counted[-1], sightings, parsed) if counted else None
    if counted and back is None:
        judgement.evidence += [folded_span(parsed, each.found.start, each.found.end, each.phrase, "meant") for each in counted]
        return
    judgement.evidence += [folded_span(parsed, each.found.start, each.found.end, each.phrase, "denied") for each in sightings]
    if back is not None:
        said = folded_span(parsed, counted[-1].found.start, counted[-1].found.end, "", "denied").text
        judgement.reasons.append(f"says '{said}', and takes it back ('{parsed.text[back[0] : back[1]].strip(' .,')}')")
    else:
        judgement.reasons.append(_missing(group, sightings, parsed))


def _taken_back(last: Sighting, sightings: Sequence[Sighting], parsed: Parsed) -> tuple[int, int] | None:
    """The words behind the last place that counts which take it back: a retraction, or the same phrase denied."""
    if words := retracts(parsed.text, parsed.sentences, last.found):
        return words
    for sighting in sightings:
        denied = sighting.reading.stance == "denied" and sighting.phrase == last.phrase and sighting.found.start > last.found.end
        if denied and not _asks_or_depends(sighting, parsed):
            return sighting.reading.cue or (sighting.found.start, sighting.found.end)
    return None


def _asks_or_depends(sighting: Sighting, parsed: Parsed) -> bool:
    """A question takes nothing back, and neither does what holds on a condition, or a second time."""
    cue = sighting.reading.cue
    if cue and parsed.text[cue[0] : cue[1]] == "?":
        return True
    sentence = next(span for span in parsed.sentences if span[0] <= sighting.found.start < span[1])
    before, behind = parsed.text[sentence[0] : sighting.found.start], parsed.text[sighting.found.end : sentence[1]]
    words = before.split()
    return (
        bool({"if", "when", "once", "unless", "for"} & {*words})
        or any(cue in before + behind for cue in ("如果", "要是", "若", "再次", "第二次", " if ", " unless "))
        or _AGAIN.match(behind) is not None
    )


def _missing(group: tuple[str, ...], sightings: list[Sighting], parsed: Parsed) -> str:
    if sightings:
        first = sightings[0]
        cue = first.reading.cue
        by = f" ('{parsed.text[cue[0] : cue[1]].strip()}')" if cue else ""
        said = folded_span(parsed, first.found.start, first.found.end, first.phrase, "denied").text
        return f"says '{said}' {_HOW[first.reading.stance]}{by}"
    listed = ", ".join(f"'{phrase}'" for phrase in group[:4]) + (f" or {len(group) - 4} more" if len(group) > 4 else "")
    return f"never says {listed}"
