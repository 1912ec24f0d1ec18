"""Names of people in English text, from a list of given names and the words around.

A name is believed behind a title (Dr, Mrs), an introduction (my name is), a label (Patient:), a relation (my husband), a greeting, a
sign-off or a verb of contact (spoke with), and before a degree or an age. The less the words say, the more the name itself must
be known: without any, given name and surname must both be on a list. There is no model: a given name that nothing announces is
missed, unless it was announced elsewhere in the same row (`privacy_repeats.py` sees to that). Discoverers of diseases
(Dr. Parkinson) are history. Next: `privacy_names_zh.py`.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from training.data.privacy_spans import CHECKED, LIKELY, STATED, Span, words_before
from training.data.privacy_words_en import (
    AMBIGUOUS_GIVEN_NAMES,
    EPONYMS,
    GIVEN_NAMES,
    NOT_NAMES,
    PARTICLES,
    SHORT_SURNAMES,
    SURNAMES,
    WORDS_AND_SURNAMES,
)

# How much is asked of the words behind an announcement: one capitalised word of `title`, `doctor` and `introduction`; two, or a
# given name, of `label` and `relation`; a given name of `greeting`; a given name that is no everyday word, or a surname, of `weak`.
Asked = Literal["title", "doctor", "introduction", "label", "relation", "greeting", "weak"]

_RELATIVES = (
    "husband wife spouse son daughter mother father mom mum dad brother sister boyfriend girlfriend partner fiance fiancee friend uncle "
    "aunt grandmother grandfather grandma grandpa grandson granddaughter cousin niece nephew roommate neighbor neighbour colleague boss "
    "baby toddler kid child stepson stepdaughter"
)
_PROFESSIONALS = (
    "caller patient client nurse practitioner doctor gynecologist dentist therapist pediatrician surgeon physiotherapist midwife carer"
)
_LABELS = (
    r"[Pp]atient(?:['’]s)?(?: [Nn]ame)?|PATIENT(?: NAME)?|[Nn]ame|NAME|(?:Emergency )?[Cc]ontact|Next of [Kk]in|NOK|Bill to|Signed(?: by)?|"
    r"Attn|Attention|Attending|Resident|Consultant|Surgeon|Physician|Provider|PCP|GP|[Gg]uardian|Re|RE|Caller|Driver of record|Recipient|"
    r"Sender|From|(?:Reviewed|Dictated|Ordered|Referred) by|Witness|Insured|Subscriber"
)
_SIGN_OFFS = r"[Rr]egards|[Ss]incerely|[Tt]ruly|[Ff]aithfully|[Ww]ishes|[Bb]est|[Cc]heers|[Tt]hanks|[Tt]hank you|[Ll]ove"
_CONTACTS = (
    r"[Ss]poken? (?:with|to)|[Ss]peak (?:to|with)|[Tt]alked to|(?:[Rr]eferred|[Ss]een|[Ee]xamined|[Rr]eviewed|[Ss]igned|[Tt]reated) by|"
    r"(?:[Rr]eferral|[Ll]etter|[Mm]essage|[Cc]all) from|[Vv]oicemail (?:of|for)|[Mm]essage for|[Oo]n behalf of|[Dd]iscussed with|"
    r"[Ff]ollow-up (?:for|of)|[Aa]ttention|[Aa]sk for|[Mm]et with|[Ll]abell?ed|[Nn]amed|[Pp](?<![A-Za-z-].)atient|PATIENT|"
    r"[Pp](?<![A-Za-z].)t|[Nn]urse(?: practitioner)?|[Cc]ontact|[Tt]hanks|[Tt]hank you|[Ii]nterpreter"
)


class _Announcement(NamedTuple):
    asked: Asked
    last_words: frozenset[str]  # the pattern can match only where one of these stands before a capital letter
    pattern: re.Pattern[str]


def _announcement(asked: Asked, last_words: str, pattern: str) -> _Announcement:
    return _Announcement(asked, frozenset(last_words.split()), re.compile(pattern))


_WHOSE = r"(?:[Mm]y|[Hh]is|[Hh]er|[Oo]ur|[Tt]heir|[Tt]he|[Aa]n?)"
_CALLED = r"(?: is (?:called|named)| named| called|,)"
_ANNOUNCEMENTS = (
    _announcement("title", "mr mrs ms miss mx", r"\b(?:[Mm]rs?|[Mm]s|Miss|[Mm]x|MRS?|MS)\.? (?:Dr\.? )?"),
    _announcement("doctor", "dr prof professor nurse sister", r"\b(?:[Dd]r|[Pp]rof|Professor|DR|Nurse|Sister)\.? (?:Dr\.? )?"),
    _announcement(
        "introduction",
        "is name's name’s me surname name user",
        r"\b(?:[Nn]ame is|[Nn]ame['’]s|['’]s (?:full )?name|[Nn]ame\?(?: User:)?|[Cc]alls? me|[Kk]nown as|[Ss]urname(?: is|:)?|"
        r"[Ll]ast name(?: is|:|\?)?) ",
    ),
    _announcement(
        "label",
        "patient patient's patient’s name contact kin nok to signed by attn attention attending resident consultant surgeon physician "
        "provider pcp gp guardian re caller record recipient sender from witness insured subscriber",
        rf"\b(?:{_LABELS})\s?[:：]\s?",
    ),
    _announcement("label", "regards sincerely truly faithfully wishes best cheers thanks you love", rf"(?:{_SIGN_OFFS})[,.!]? ?\n{{1,2}}"),
    _announcement(
        "relation", f"{_RELATIVES} named called", rf"\b{_WHOSE} (?:[a-z]{{2,12}} )?(?:{_RELATIVES.replace(' ', '|')}){_CALLED}? "
    ),
    _announcement("relation", f"{_PROFESSIONALS} named called", rf"\b{_WHOSE} (?:nurse )?(?:{_PROFESSIONALS.replace(' ', '|')}){_CALLED} "),
    _announcement("weak", _PROFESSIONALS, rf"\b{_WHOSE} (?:nurse )?(?:{_PROFESSIONALS.replace(' ', '|')}) "),
    _announcement("greeting", "hi hello dear hey morning afternoon", r"\b(?:Hi|Hello|Dear|Hey|Good (?:morning|afternoon)),? "),
    _announcement("weak", "am i'm i’m is it's it’s", r"\b(?:I am|I['’]m|[Tt]his is|[Ii]t['’]s) "),
    _announcement(
        "weak",
        "with to by from for of attention labelled labeled named patient pt nurse practitioner contact thanks you interpreter was the",
        rf"(?:{_CONTACTS}),? (?:was )?(?:the )?(?:nurse )?(?:practitioner )?",
    ),
)  # fmt: skip
_CUE = re.compile(r"(?<![A-Za-z])([A-Za-z'’]{1,16})[.,:：!?]{0,2}[ \n]{0,3}(?=[A-Z])")

_CAPITALS = "A-ZÀ-ÖØ-Þ"
_LETTERS = "A-Za-zÀ-ÖØ-öø-ÿ"
_WORD = re.compile(
    rf"[A-Z]\.(?=[ A-Z])|[{_CAPITALS}][{_LETTERS}]{{0,20}}(?:['’-][{_LETTERS}]{{2,20}}){{0,2}}(?![{_LETTERS}0-9]|['’-][{_LETTERS}]{{2}})"
)
_PARTICLE = re.compile(r"[a-z]{1,4}(?= [A-Za-z])")
_GAP = re.compile(r" |(?<=\.)(?=[A-Z])")
_SURNAME_FIRST = re.compile(r"([A-Z][A-Za-z'’-]{1,20}), ?([A-Z][A-Za-z'’-]{1,20})\b(?: [A-Z]\b\.?)?")
_LABEL_ENDS = re.compile(r"\s*(?:$|[\n,;.()（/|]|[ \t]{2}|[a-z]|[0-9]|[A-Z][A-Za-z]{1,12}:)")
_SINGLE_ENDS = re.compile(
    r"\s*(?:[,.;:!?)\n(–-]|$)|['’]s\b| (?:and|is|was|has|had|have|from|at|on|said|says|who|could|did|does|took|takes|told|again|with|in|"
    r"for|but|will|can|got|just|started|came|went|called|about|because|since|after|before|to|if|when|yesterday|today|reports|reported|denies|"
    r"feels)\b"
)
# What a name is part of: a disease, a test, a brand, the history of medicine.
_EPONYM_FOLLOWS = re.compile(
    r"(?: [a-z]{2,12}){0,2} (?:described|discovered|invented|developed|coined)\b"
    r"|(?:['’]s)? (?:disease|syndrome|disorder|sign|palsy|insole|shoe|lymphoma|test|scale|score|procedure|maneuver|operation|law|"
    r"theorem|effect|tumou?r)"
)
_DISCOVERED_BY = re.compile(
    r"(?:described|discovered|named after|named for|invented|developed)(?: in [0-9]{4})?(?: by)?(?: dr\.?| prof\.?)? ?$"
)
_INSTITUTION_FOLLOWS = re.compile(r" (?:[A-Z]|University|Hospital|Clinic|Institute|Foundation|and [A-Z]|[&] )|['’]s [A-Z]|-")
_PAIR = re.compile(r"[A-Z][a-z]{1,15}(?= [A-Z])")
_DEGREE = re.compile(r",? (?:M\.?D\b|PA-C\b|RN\b|NP\b|D\.?O\b|Ph\.?D\b|MBBS\b|FRCS\b|DDS\b|DPT\b|LPN\b)")
_AGE = re.compile(r",? (?:aged |age )?[0-9]{1,3}(?:[ -]?(?:yrs?|years?|y/o|yo)\b|,)|,? a [0-9]{1,3}[ -]year")
_IN_SMALL_LETTERS = re.compile(r"[Mm]y name(?: is|['’]s) ([a-z]{2,15})\b(?: ([a-z]{3,20})\b)?")
_NO_SURNAMES = frozenset(("here", "live", "work", "need", "want", "feel", "suffer", "years", "male", "female", "married", "single"))


def find_english_names(text: str) -> Iterator[Span]:
    """Announced names, without their title."""
    cues = {match[1].lower() for match in _CUE.finditer(text)}
    for announcement in _ANNOUNCEMENTS:
        if not cues.isdisjoint(announcement.last_words):
            for match in announcement.pattern.finditer(text):
                yield from _announced(text, match.end(), announcement.asked)
    for match in _PAIR.finditer(text):
        if match[0].lower() in GIVEN_NAMES:
            yield from _full_name(text, match.start())
    if "y name" in text:
        for match in _IN_SMALL_LETTERS.finditer(text):
            yield from _in_small_letters(match)


def _announced(text: str, start: int, asked: Asked) -> Iterator[Span]:
    if asked == "label" and (match := _SURNAME_FIRST.match(text, start)) and _is_surname_first(match):
        yield Span(*match.span(), "name", STATED)
        return
    words = _words_at(text, start)
    if words and not _is_history(text, words, asked) and _is_believed([match[0] for match in words], text, words[-1].end(), asked):
        yield Span(words[0].start(), words[-1].end(), "name", CHECKED if asked in ("title", "doctor", "introduction") else STATED)


def _is_surname_first(match: re.Match[str]) -> bool:
    """DOE, JANET and Doe, Janet."""
    plain = {match[1].lower(), match[2].lower()}.isdisjoint(NOT_NAMES)
    return plain and (match[2].lower() in GIVEN_NAMES or match[0].isupper())


def _words_at(text: str, start: int) -> list[re.Match[str]]:
    """Up to four words from here that may be parts of one name, with particles (van, de la) between them."""
    words: list[re.Match[str]] = []
    place = start
    while len(words) < 4 and (match := _WORD.match(text, place) or (_PARTICLE.match(text, place) if words else None)):
        if _ends_a_name(match[0], begun=bool(words)):
            break
        words.append(match)
        gap = _GAP.match(text, match.end())
        if not gap:
            break
        place = gap.end()
    while words and words[-1][0] in PARTICLES:
        words.pop()
    return words


def _ends_a_name(word: str, *, begun: bool) -> bool:
    if begun and word.lower() in WORDS_AND_SURNAMES:
        return False
    return word.lower() in NOT_NAMES or (word[0].islower() and word not in PARTICLES)


def _is_history(text: str, words: list[re.Match[str]], asked: Asked) -> bool:
    """The discoverer of a disease, or the disease."""
    if _EPONYM_FOLLOWS.match(text, words[-1].end()) or (asked == "doctor" and words[-1][0].lower() in EPONYMS):
        return True
    return _DISCOVERED_BY.search(words_before(text, words[0].start(), 48)) is not None


def _is_believed(words: list[str], text: str, end: int, asked: Asked) -> bool:
    if all(len(word) <= 2 and word not in SHORT_SURNAMES for word in words):
        return False
    if asked in ("title", "doctor", "introduction"):
        return True
    given = words[0].lower()
    if len(words) == 1:
        clear = asked in ("relation", "greeting") or given not in AMBIGUOUS_GIVEN_NAMES
        return given in GIVEN_NAMES and clear and _SINGLE_ENDS.match(text, end) is not None
    if given in GIVEN_NAMES or asked == "relation" or words[-1].lower() in SURNAMES:
        return True
    return asked == "label" and _LABEL_ENDS.match(text, end) is not None


def _full_name(text: str, start: int) -> Iterator[Span]:
    """A known given name and a known surname, or any surname before a degree or an age."""
    words = _words_at(text, start)
    if len(words) < 2 or _is_history(text, words, "weak"):
        return
    end, surname = words[-1].end(), words[-1][0].lower()
    listed = surname in SURNAMES and surname not in EPONYMS and words[0][0].lower() not in AMBIGUOUS_GIVEN_NAMES
    if (listed and not _INSTITUTION_FOLLOWS.match(text, end)) or _DEGREE.match(text, end) or _AGE.match(text, end):
        yield Span(words[0].start(), end, "name", LIKELY)


def _in_small_letters(match: re.Match[str]) -> Iterator[Span]:
    """my name is john smith."""
    if match[1] in GIVEN_NAMES:
        surname = match[2] and match[2] not in NOT_NAMES and match[2] not in _NO_SURNAMES
        yield Span(match.start(1), match.end(2) if surname else match.end(1), "name", LIKELY)
