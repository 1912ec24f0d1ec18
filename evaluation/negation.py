"""Says whether a phrase found in an answer is meant, or denied: "no need to see a doctor" does not tell anyone to see a doctor.

The answer is cut into sentences and clauses. In the clause of a phrase every denial turns the meaning round, so two of them
cancel ("never take it without asking your doctor"). A denial that lands on a word of delay or worry is used up by it ("do not
wait, call 911", 不要拖延). A denial may also follow ("calling is not necessary"), and a question asserts nothing.
It is a reading by surface cues, not a parser; the sentences it is known to read right are tests. The words are in `cues.py`.
Next: `rules.py`.
"""

import itertools
import re
from bisect import bisect_right
from dataclasses import dataclass

from evaluation.cues import CHINESE, ENGLISH, Cues
from evaluation.framing import Stance, frame_of
from evaluation.phrases import Found, split_sentences
from evaluation.text import Folded, fold

_MARKS = re.compile(r",|;|:|\(|\)|\n|(?<= )-+(?= )")
_ANSWERED = re.compile(r"\W*(?:(?:no|not|yes|never|only|hardly|it depends|that depends)\b|不|没|可以|能)")
_LANGUAGES = (ENGLISH, CHINESE)
_WORD_CAP = 1  # a middle list item this short still hangs on a "do not": "do not eat, drink, or drive"


@dataclass(frozen=True)
class Clause:
    """A half-open span of folded text. `after_comma`: a comma, and nothing stronger, parts it from the clause before."""

    start: int
    end: int
    after_comma: bool


@dataclass(frozen=True, eq=False)  # the same answer is the same object: caches need not compare its thousands of positions
class Parsed:
    """An answer, folded and cut up once, for all rules that look at it."""

    folded: Folded
    sentences: tuple[tuple[int, int], ...]
    clauses: tuple[tuple[Clause, ...], ...]

    @property
    def text(self) -> str:
        """The folded text."""
        return self.folded.text


@dataclass(frozen=True)
class Reading:
    """How one occurrence is meant, and the folded span of the words that turned it round or put it into a frame, if any."""

    stance: Stance
    cue: tuple[int, int] | None = None

    @property
    def affirmed(self) -> bool:
        """Whether the answer itself says so, be it with a hedge or on a condition."""
        return self.stance in ("meant", "hedged", "conditional")


def parse(source: str) -> Parsed:
    """Fold an answer and cut it into sentences and clauses."""
    return parse_folded(fold(source))


def parse_folded(folded: Folded) -> Parsed:
    """Cut folded text into sentences and clauses."""
    sentences = split_sentences(folded.text)
    return Parsed(folded=folded, sentences=sentences, clauses=tuple(_split_clauses(folded.text, *span) for span in sentences))


def read(parsed: Parsed, found: Found) -> Reading:
    """Whether the phrase found at `found` is affirmed where it stands."""
    sentence, clauses = _place(parsed, found)
    text = parsed.text
    if _asks(text[sentence[0] : sentence[1]], text[sentence[1] : sentence[1] + 24]):
        return Reading("denied", (sentence[1] - 1, sentence[1]))
    at = max(index for index, clause in enumerate(clauses) if clause.start <= found.start)
    cues = [cue for language in _LANGUAGES for cue in _cues(text, language, sentence, clauses, at, found)]
    if len(cues) % 2:
        return Reading("denied", cues[-1])
    return Reading(*frame_of(text, parsed.sentences, found))


def _place(parsed: Parsed, found: Found) -> tuple[tuple[int, int], tuple[Clause, ...]]:
    at = bisect_right(parsed.sentences, (found.start, len(parsed.text))) - 1
    return parsed.sentences[at], parsed.clauses[at]


def _split_clauses(text: str, start: int, end: int) -> tuple[Clause, ...]:
    """Cut a sentence at its punctuation and at words that open a clause."""
    cuts = {match.end(): match.group() == "," for match in _MARKS.finditer(text, start, end)}
    for language in _LANGUAGES:
        for match in language.border.finditer(text, start, end):
            before = text[start : match.start()].rstrip()
            after_comma = before.endswith(",")
            if after_comma:
                cuts.pop(start + len(before), None)
            cuts[match.start()] = after_comma and language.or_list.match(text, match.start()) is not None
    points = [start, *sorted(cut for cut in cuts if start < cut < end), end]
    return tuple(Clause(first, last, cuts.get(first, False)) for first, last in itertools.pairwise(points))


def _asks(sentence: str, behind: str) -> bool:
    """Whether a sentence only asks; a request in the form of a question ("can you call 911?") does not, unless it is answered at once."""
    body = sentence.rstrip("\"' )\n")
    if not body.endswith("?"):
        return False
    if _ANSWERED.match(behind):
        return True
    body = body.rstrip("?!").strip()
    return all(language.asks.match(body) is not None for language in _LANGUAGES if language is ENGLISH or _is_chinese(body))


def _is_chinese(text: str) -> bool:
    return re.search("[\u4e00-\u9fff]", text) is not None


def _cues(
    text: str, language: Cues, sentence: tuple[int, int], clauses: tuple[Clause, ...], at: int, found: Found
) -> list[tuple[int, int]]:
    """Folded spans of all cues of one language that turn the occurrence round."""
    clause = clauses[at]
    wide, _ = _denials(text, language, clause.start, found.start)
    _, used_up = _denials(text, language, sentence[0], found.start)
    if not wide:
        wide = _inherited(text, language, clauses, at)
    tight = language.tight.search(text, sentence[0], found.start) if found.start > sentence[0] else None
    cues = list(wide)
    if (
        tight
        and not any(start <= tight.start() < end for start, end in (*used_up, *wide))
        and not _covers(language, text, tight.span(), (sentence[0], found.start))
    ):
        cues.append(tight.span())
    cues += [
        (end, start) for (_, end), (start, _) in zip(found.parts, found.parts[1:], strict=False) if _denials(text, language, end, start)[0]
    ]
    if not cues or len(cues) % 2 == 0:
        cues += _denied_after(text, language, clauses, at, found)
    return cues


def _denials(text: str, language: Cues, start: int, end: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Denials in text[start:end] that reach its end, and the spans of those that a word of delay used up."""
    reaching, used_up = [], []
    for match in language.denial.finditer(text, start, end):
        if _covers(language, text, match.span(), (start, end)):
            continue
        delay = language.delay.match(text[match.end() : end])
        needless = language.needless.match(text, match.start(), end)
        if delay and not (needless and language.joined.match(text[match.end() + delay.end() : end])):
            used_up.append((match.start(), match.end() + delay.end()))
        elif _reaches(text, language, match, bool(needless), start, end):
            reaching.append(match.span())
    return reaching, used_up


def _covers(language: Cues, text: str, span: tuple[int, int], within: tuple[int, int]) -> bool:
    """Whether `span` is part of an expression that only looks like a denial and ends before the phrase begins."""
    return any(
        harmless.start() <= span[0] < harmless.end() for harmless in language.harmless.finditer(text, max(within[0] - 8, 0), within[1])
    )


def _reaches(text: str, language: Cues, cue: re.Match[str], needless: bool, start: int, end: int) -> bool:
    """Whether a denial still holds where the clause's text ends, which is where the phrase begins."""
    between = text[cue.end() : end]
    if language.linkers.match(between):
        return True
    if (
        language.conditional.match(text[start:end])
        or language.relative.search(text[start : cue.start()])
        or language.relative.match(text[start:end])
    ):
        return False
    return needless or language.second.search(between) is None


def _inherited(text: str, language: Cues, clauses: tuple[Clause, ...], at: int) -> list[tuple[int, int]]:
    """The denial that a list item takes over: "you don't have to A, B, or C" denies all three."""
    first = at
    while first > 0 and clauses[first].after_comma:
        first -= 1
        head = clauses[first]
        reaching, _ = _denials(text, language, head.start, head.end)
        if not reaching:
            continue
        cue = reaching[-1]
        if not text[cue[1] : head.end].strip(" ,"):
            return [cue] if at - first <= 2 else []  # "do not, under any circumstances, …"
        own = language.or_list.match(text[clauses[at].start : clauses[at].end])
        later = any(language.or_list.match(text[item.start : item.end]) for item in _run(clauses, at))
        short = len(text[clauses[at].start : clauses[at].end].strip(" ,").split()) <= _WORD_CAP
        if own or (later and (short or language.needless.match(text, cue[0]))):
            return [cue]
        return []
    return []


def _run(clauses: tuple[Clause, ...], at: int) -> tuple[Clause, ...]:
    """The comma-parted clauses right after `at`."""
    last = at + 1
    while last < len(clauses) and clauses[last].after_comma:
        last += 1
    return clauses[at + 1 : last]


def _denied_after(text: str, language: Cues, clauses: tuple[Clause, ...], at: int, found: Found) -> list[tuple[int, int]]:
    """A denial behind the phrase, in its clause or pointing back from the next one."""
    last = max(index for index, clause in enumerate(clauses) if clause.start < found.end)
    if match := language.after.match(text[found.end : clauses[last].end]):
        return [(found.end + match.start(), found.end + match.end())]
    if last + 1 < len(clauses) and (match := language.next_clause.match(text[clauses[last + 1].start : clauses[last + 1].end])):
        return [(clauses[last + 1].start + match.start(), clauses[last + 1].start + match.end())]
    return []
