"""Cleans one text: wrong encodings, invisible characters, Unicode, HTML, adverts, white space; each step on or off by recipe.

The steps run in order, and again until nothing changes any more: an entity may hide a tag, a tag an advert. So cleaning twice is
cleaning once. Knows nothing of rows, files or languages, and never raises. Next: `clean_encoding.py`, `clean_characters.py`,
`clean_markup.py`, `clean_adverts.py`, one for each kind of dirt; `clean_code.py` says what none of them may touch.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from training.data.clean_adverts import Adverts
from training.data.clean_characters import normal_form, tidy_spaces, without_controls
from training.data.clean_encoding import mended
from training.data.clean_markup import without_markup
from training.sections import Section

EMPTY = "empty_after_cleaning"  # the reason code of a row of which nothing is left
UNSETTLED = "unsettled"

_MOST_ROUNDS = 10

Phrase = Annotated[str, Field(min_length=2, max_length=200)]


class CleaningSection(Section):
    """Which repairs every text of a row gets; all of them leave code alone."""

    mojibake: bool = Field(default=True, description="put text right that was decoded with the wrong encoding (â€™, 浣犲ソ)")
    control_characters: bool = Field(default=True, description="remove invisible characters; line ends become a line feed")
    unicode: Literal["nfc", "nfkc", "none"] = Field(
        default="nfc", description="normal form; nfkc also narrows full-width letters and writes 10⁹ as 109, so take it with care"
    )
    html: bool = Field(default=True, description="strip tags, comments, scripts and entities where a text really is HTML")
    html_pages: Literal["keep", "strip"] = Field(
        default="keep", description="whole pages and forms: keep takes them for answers that teach HTML, strip for scraped pages"
    )
    boilerplate: bool = Field(default=True, description="remove adverts, copyright and cookie notices, share buttons (English, Chinese)")
    boilerplate_phrases: tuple[Phrase, ...] = Field(
        default=(), max_length=500, description="a sentence with one of these words in it is boilerplate too; plain text, any case"
    )
    whitespace: bool = Field(default=True, description="one space between words, none at line ends; indentation stays")
    max_blank_lines: int = Field(default=2, ge=0, le=10, description="blank lines in a row that are left by `whitespace`")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text after cleaning: each step that changed it counts 1, and `adverts` are the sentences that were taken out."""

    text: str
    changes: Counter[str] = field(default_factory=Counter)
    adverts: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to learn from; the row is then dropped as `EMPTY`."""
        return not self.text.strip()


class Cleaner:
    """Cleans texts by one section. Has no state between texts; build one per process."""

    def __init__(self, section: CleaningSection) -> None:
        self._adverts = Adverts(section.boilerplate_phrases)
        form: Literal["NFC", "NFKC"] = "NFKC" if section.unicode == "nfkc" else "NFC"
        steps: list[tuple[str, bool, Callable[[str], str]]] = [
            ("mojibake", section.mojibake, mended),
            ("control_characters", section.control_characters, without_controls),
            ("unicode", section.unicode != "none", partial(normal_form, form=form)),
            ("html", section.html, partial(without_markup, pages=section.html_pages == "strip")),
            ("whitespace", section.whitespace, partial(tidy_spaces, max_blank_lines=section.max_blank_lines)),
        ]
        self._steps = [(name, step) for name, on, step in steps if on]
        self._boilerplate = section.boilerplate

    def clean(self, text: str) -> Cleaned:
        """The text with every step's changes, settled.

        A text that still changes after ten rounds was made to; it comes back as it was, with `unsettled` counted.
        """
        changed: set[str] = set()
        adverts: list[str] = []
        current = text
        for _ in range(_MOST_ROUNDS):
            before = current
            for name, step in self._steps:
                after = step(current)
                if after is not current and after != current:
                    changed.add(name)
                    current = after
            if self._boilerplate:
                current, found = self._adverts.removed_from(current)
                adverts += found
            if current == before:
                return Cleaned(current, Counter([*sorted(changed), *(["boilerplate"] if adverts else [])]), tuple(adverts))
        return Cleaned(text, Counter([UNSETTLED]))
