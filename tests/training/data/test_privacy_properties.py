"""What holds for every text: found by hypothesis in texts built of fragments that the recognisers react to."""

import gc
import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.privacy import KINDS, Masker, PrivacySection

_FRAGMENTS = [
    *(
        "Dr. ",
        "Mr ",
        "my name is ",
        "I'm ",
        "Patient: ",
        "My son ",
        "Regards,\n",
        "spoke with ",
        "John",
        "Smith",
        "May",
        "Lee",
        "O'Ab",
        "J. ",
    ),
    *(
        "van ",
        "’s ",
        "患者",
        "我叫",
        "姓名：",
        "张",
        "王建国",
        "欧阳",
        "先生",
        "医生",
        "某",
        "，",
        "。",
        "家住",
        "北京市",
        "中山路",
        "8号",
        "3栋",
    ),
    *("的", "男", "微信", "QQ号", "生日", "出生", "1", "13800001234", "110101198703120021", "212-555-0187", "+44 7700 900456"),
    *("4111 1111 1111 1111", "GB82WEST12345698765432", "943 476 5919", "078-05-1120", "SSN ", "NHS ", "MRN ", "born ", "IBAN ", "card "),
    *("passport ", "phone ", "IP ", "198.51.100.23", "2001:db8::9a", "a@b.example", "@", ".", "facebook.com/ab.cd", "my ", "12 Elm Street"),
    *(
        ", Leeds LS7 3QF",
        ", IL 62704",
        "P.O. Box 12",
        "2020-01-02",
        "1987年3月12日",
        "京A·88K61",
        "[",
        "]",
        "[NAME_1]",
        "[PHONE_2]",
        "[NAME]",
    ),
    *(" ", "\n", "-", ":", "：", "(", "#", "\ue000", "\u0130", "１３８００００１２３４", "\x00", "😀", "X"),
]
_REPEATED = (
    *(
        "1",
        "@",
        "a.",
        "a@",
        "1 ",
        "1-",
        "(1",
        "+1",
        "A",
        "a",
        "Ab ",
        "Ab, ",
        "12 Ab ",
        "::",
        "1:",
        "GB82 ",
        "[",
        "[NAME_1]",
        "我",
        "张",
        "路1号",
    ),
    *("我叫张", "患者：", "年", "\n", "Dr. Abc ", "Dr. Ab van de la ", "王先生", "13800138000 ", "4111 1111 1111 1111 ", "x.com/ab "),
    *("12 Ab, NY 12345 ", "my name is bob "),
)
_TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_FRAGMENTS), max_size=14).map("".join))
_ROWS = st.lists(_TEXTS, min_size=1, max_size=3)
_MASKER = Masker(PrivacySection())
_EXAMPLES = settings(max_examples=400, deadline=None)


@_EXAMPLES
@given(_ROWS)
def test_masking_a_masked_row_changes_nothing(texts: list[str]) -> None:
    once = _MASKER.mask(texts).texts

    again = _MASKER.mask(once)

    assert (again.texts, again.findings) == (once, ())


@_EXAMPLES
@given(_ROWS)
def test_outside_of_findings_no_character_changes(texts: list[str]) -> None:
    masked = _MASKER.mask(texts)

    for index, text in enumerate(texts):
        places = [(finding.start, finding.end) for finding in masked.findings if finding.text == index]
        kept = [
            text[end:start]
            for end, start in zip([0, *(end for _, end in places)], [*(start for start, _ in places), len(text)], strict=True)
        ]
        assert all(start < end for start, end in places)
        assert all(end <= start for (_, end), (start, _) in pairwise(places))
        assert re.fullmatch(r"\[[A-Z_]+_[0-9]+\]".join(map(re.escape, kept)), masked.texts[index])


@_EXAMPLES
@given(_ROWS, st.lists(st.sampled_from([f for f in _FRAGMENTS if len(f.strip()) > 2 and not f.startswith("[")]), min_size=1, max_size=4))
def test_allowed_phrases_survive(texts: list[str], allow: list[str]) -> None:
    masker = Masker(PrivacySection(allow=tuple(allow)))

    masked = masker.mask(texts).texts

    for phrase in {phrase.strip() for phrase in allow}:
        whole = re.compile(rf"(?<![A-Za-z0-9]){re.escape(phrase)}(?![A-Za-z0-9])")
        for text, after in zip(texts, masked, strict=True):
            assert len(whole.findall(after)) >= len(whole.findall(text)) or "[" in text
    assert masker.mask(masked).texts == masked


@_EXAMPLES
@given(_ROWS, st.sets(st.sampled_from(KINDS), min_size=1))
def test_only_wanted_kinds_are_found_and_each_placeholder_names_its_kind(texts: list[str], kinds: set[str]) -> None:
    masked = Masker(PrivacySection(kinds=tuple(kinds))).mask(texts)

    assert {finding.kind for finding in masked.findings} <= kinds
    assert all(f"[{finding.kind.upper()}_" in masked.texts[finding.text] for finding in masked.findings)


@pytest.mark.parametrize("piece", _REPEATED)
def test_time_grows_with_length_and_not_with_its_square(piece: str) -> None:
    """Eight times the text may take at most 24 times as long: linear is 8, quadratic 64."""
    short, long = (_seconds(piece * (length // len(piece))) for length in (20_000, 160_000))

    assert long < 24 * short + 0.5


def test_half_a_megabyte_of_different_names_is_masked_in_seconds() -> None:
    """Each name is remembered and looked for again; that must not cost one pass per name."""
    text = " ".join(f"Dr. Ab{''.join(chr(97 + int(digit)) for digit in str(number))}." for number in range(30_000))

    assert len(_MASKER.mask([text]).findings) == 30_000
    assert _seconds(text) < 40


def _seconds(text: str) -> float:
    """Processor time; the collector would walk through all that pytest holds, which is not the masker's."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        _MASKER.mask([text])
        return time.process_time() - start
    finally:
        gc.enable()
