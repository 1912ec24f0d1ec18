"""Which language a text is written in, as an ISO 639-1 code or `und`, with a confidence from 0 to 1.

Writing systems decide first: they are counted at C speed, they are certain for Chinese, Japanese, Korean, Thai and others, and they
settle mixed text (a Chinese question about COPD is Chinese). English is known by its small words. Only what is left, other
languages in Latin, Cyrillic, Arabic or Devanagari letters, goes to py3langid. Chinese dialects are `zh`.
Knows nothing of rows. Next: `cleaning.py`.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from training.data.clean_code import prose_of
from training.sections import Section

UNKNOWN = "und"

# The codes that py3langid 0.4 or the writing systems can answer; a test compares them with the model.
_CODES = """
af am an ar as az ba be bg bn br bs ca cs cy da de dz el en eo es et eu fa fi fo fr fy ga gd gl gu ha he hi hr ht hu hy id ig is it ja jv
ka kk km kn ko ku ky la lb lg ln lo lt lv mg mk ml mn mr ms mt my ne nl nn no oc om or pa pl ps pt qu ro ru rw sa se si sk sl sn so sq sr
st sv sw ta te tg th tk tl tr tt ug uk ur uz vi vo wa xh yo zh zu
"""
CODES = frozenset(_CODES.split())


class LanguageSection(Section):
    """Which languages the rows may be in."""

    identify: bool = Field(default=True, description="find out and count the language of every row")
    allow: tuple[str, ...] = Field(
        default=(), max_length=100, description="ISO 639-1 codes such as [zh, en]; rows in another language are dropped; empty keeps all"
    )
    min_confidence: float = Field(default=0.7, ge=0, le=1, description="0 to 1; a text told with less counts as `und` and is kept")
    min_characters: int = Field(
        default=12,
        ge=1,
        le=10_000,
        description="letters a text must have to be judged, a Chinese character counting three; shorter ones are kept",
    )

    @field_validator("allow")
    @classmethod
    def _codes_are_known(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [code for code in allow if code not in CODES]:
            hint = "; Chinese is zh, Japanese ja, Korean ko" if {*wrong} & {"cn", "jp", "kr", "zh-cn", "zh_CN"} else ""
            raise ValueError(f"no language that can be told has the ISO 639-1 code {', '.join(wrong)}{hint}")
        return allow


@dataclass(frozen=True, slots=True)
class Language:
    """A language and how sure it is; `und` is short text, numbers, or no language at all."""

    code: str
    confidence: float


_NONE = Language(UNKNOWN, 0.0)


class Identifier:
    """Tells languages by one section. The model (45 MB, 0.5 s) is loaded once per process, at the first text that needs it."""

    def __init__(self, section: LanguageSection) -> None:
        self.section = section

    def identify(self, text: str) -> Language:
        """The language of a row's text; `und` where it is less sure than the section asks for."""
        language = detect(text, self.section.min_characters)
        return language if language.confidence >= self.section.min_confidence else Language(UNKNOWN, language.confidence)

    def refusal(self, language: Language) -> str | None:
        """Why a row in this language is dropped (reason code `language`), or None when it is kept."""
        allow = self.section.allow
        if not allow or language.code in (UNKNOWN, *allow):
            return None
        return f"the text is in {language.code} ({language.confidence:.0%} sure), the recipe allows {', '.join(allow)}"


def detect(text: str, min_characters: int = 12) -> Language:
    """The language in which most of the prose is written; `und` below `min_characters` letters."""
    if "`" in text or "~~~" in text:
        text = prose_of(text)
    if "://" in text or "www." in text:
        text = _ADDRESS.sub(" ", text)
    if text.isascii():
        return _latin(text, 1.0, min_characters)
    script, share, letters = _main_script(text)
    if script.code == "Latin":
        return _latin(text, share, min_characters)
    if letters < min_characters // script.weight:
        return _NONE
    if len(script.code) == 2:
        return Language(script.code, share)
    return _by_model(_only(script, text), share)


# --- writing systems ---------------------------------------------------------------------------------------------------------------


class _Script(NamedTuple):
    """A writing system: its language where it has one, else its name; how many Latin letters say as much as one of its characters."""

    code: str
    weight: int
    ranges: str


_ADDRESS = re.compile(r"(?:https?://|www\.)[!-~]{1,2000}")
# A Chinese character weighs three letters, a word in Latin letters at most five: translations keep about that proportion, and one
# long foreign term does not outweigh the Chinese sentence around it.
_WORD = 5
_SCRIPTS = (
    _Script("", 0, ""),
    _Script("Latin", 1, "A-Za-z\u00aa-\u00aa\u00ba-\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0250-\u02af\u1e00-\u1eff"),
    _Script("zh", 3, "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"),
    _Script("ja", 2, "\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fc\uff66-\uff9d"),
    _Script("ko", 2, "\uac00-\ud7a3\u1100-\u11ff\u3131-\u318e"),
    _Script("Cyrillic", 1, "\u0400-\u052f"),
    _Script("Arabic", 1, "\u0620-\u065f\u066e-\u06ef\u06fa-\u06ff\u0750-\u077f"),
    _Script("Devanagari", 1, "\u0900-\u097f"),
    _Script("Bengali", 1, "\u0980-\u09ff"),
    _Script("el", 1, "\u0370-\u03ff\u1f00-\u1fff"),
    _Script("he", 1, "\u05d0-\u05ea"),
    _Script("th", 1, "\u0e01-\u0e5b"),
    _Script("lo", 1, "\u0e81-\u0edf"),
    _Script("km", 1, "\u1780-\u17f9"),
    _Script("my", 1, "\u1000-\u109f"),
    _Script("ka", 1, "\u10a0-\u10ff"),
    _Script("hy", 1, "\u0531-\u058f"),
    _Script("pa", 1, "\u0a01-\u0a76"),
    _Script("gu", 1, "\u0a81-\u0aff"),
    _Script("or", 1, "\u0b01-\u0b77"),
    _Script("ta", 1, "\u0b82-\u0bfa"),
    _Script("te", 1, "\u0c00-\u0c7f"),
    _Script("kn", 1, "\u0c80-\u0cf2"),
    _Script("ml", 1, "\u0d00-\u0d7f"),
    _Script("si", 1, "\u0d82-\u0df4"),
)
_LATIN, _HAN, _KANA = 1, 2, 3
_LEAST_KANA = 0.1  # share of kana among kana and Han: Japanese prose has over 0.4, Chinese that quotes a name hardly any


@cache
def _tables() -> tuple[Any, Any]:
    """Script number of each code unit of UTF-16, and weight of each script."""
    import numpy as np

    numbers = np.zeros(65536, np.uint8)
    for number, script in enumerate(_SCRIPTS):
        for first, last in re.findall("(.)-(.)", script.ranges):
            numbers[ord(first) : ord(last) + 1] = number
    return numbers, np.array([script.weight for script in _SCRIPTS])


def _main_script(text: str) -> tuple[_Script, float, int]:
    """The script that says most of the text, its share of what is said (0–1), and its number of letters."""
    import numpy as np

    numbers, weights = _tables()
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
    scripts = numbers[units]
    letters = np.bincount(scripts, minlength=len(_SCRIPTS))
    said = letters * weights
    latin = scripts == _LATIN
    said[_LATIN] = min(said[_LATIN], _WORD * (int(latin[0]) + np.count_nonzero(latin[1:] & ~latin[:-1])))
    together = said[_HAN] + said[_KANA]
    if letters[_KANA] >= _LEAST_KANA * (letters[_HAN] + letters[_KANA]):
        said[_HAN], said[_KANA] = 0, together
    else:
        said[_HAN], said[_KANA] = together, 0
    best = int(said.argmax())
    total = int(said.sum())
    return (_SCRIPTS[best], int(said[best]) / total, int(letters[best])) if total else (_SCRIPTS[1], 0.0, 0)


def _only(script: _Script, text: str) -> str:
    return _others(script.ranges).sub(" ", text[:_LONGEST])


@cache
def _others(ranges: str) -> re.Pattern[str]:
    return re.compile(f"[^{ranges}\u0300-\u036f' ]+")


# --- languages that share a script -------------------------------------------------------------------------------------------------

_LONGEST = 400  # characters that the model reads; more made no answer better
_ENGLISH_LONGEST = 1000
# Small words of English: `_SURE` are words of no other language, the others are common in English and rare or absent elsewhere.
_SURE = """
the and that with which this these those what how does should would could their they from have been you your when who whose why where
there because about between through during without whether
"""
_LIKELY = """
of is are it for to be can has not or an were was will more most people its than then them by i'm it's don't isn't treated caused used
"""
_SURE_WORDS = frozenset(_SURE.split())
_ENGLISH_WORDS = _SURE_WORDS | frozenset(_LIKELY.split())


def _latin(text: str, share: float, min_characters: int) -> Language:
    start = text[:_ENGLISH_LONGEST].lower()
    words = start.split()
    small = sum(map(_ENGLISH_WORDS.__contains__, words))
    if small >= 2 and small * 5 >= len(words) and not _SURE_WORDS.isdisjoint(words) and len(start) >= min_characters:
        return Language("en", share)
    prose = _only(_SCRIPTS[1], text)
    if len(prose) - prose.count(" ") < min_characters:
        return _NONE
    return _by_model(prose, share)


def _by_model(prose: str, share: float) -> Language:
    code, confidence = _model().classify(prose)
    return Language(code, float(confidence) * share) if code != "zxx" else _NONE


@cache
def _model() -> Any:
    """py3langid's model with the languages that have an ISO 639-1 code, and `zxx`, which is no language."""
    import numpy as np
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages([*CODES & {*model.labels}, "zxx"])
    model.nb_ptc = np.ascontiguousarray(model.nb_ptc, np.float32)  # as shipped, half precision and strided: 4 times slower
    return model
