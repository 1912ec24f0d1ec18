from hypothesis import given
from hypothesis import strategies as st

from evaluation.text import count_units, fold, fold_text


def test_full_width_case_quotes_and_spaces_are_folded() -> None:
    assert fold_text("  ＣＡＬＬ\u3000９１１，\u2018now\u2019\n") == "call 911,'now'"


def test_invisible_characters_vanish() -> None:
    assert fold_text("call\u200b 9\u00ad11") == "call 911"


def test_a_list_item_ends_a_sentence_and_a_wrapped_line_does_not() -> None:
    assert fold_text("see a\ndoctor\n- rest") == "see a doctor\n- rest"


def test_a_span_leads_back_to_the_original_characters() -> None:
    folded = fold("Now: “Ｃall ９１１”!")
    at = folded.text.index("call 911")
    start, end = folded.source_span(at, at + len("call 911"))
    assert folded.source[start:end] == "Ｃall ９１１"


def test_a_character_that_folds_to_several_leads_back_to_itself() -> None:
    folded = fold("a…b")
    assert folded.text == "a...b"
    assert folded.source_span(1, 4) == (1, 2)


def test_a_combining_mark_belongs_to_its_letter() -> None:
    folded = fold("cafe\u0301 now")
    assert folded.text == "café now"
    assert folded.source_span(0, 4) == (0, 5)


@given(st.text(max_size=60))
def test_every_folded_span_lies_inside_the_source(source: str) -> None:
    folded = fold(source)
    assert len(folded.origin) == len(folded.text) + 1
    assert list(folded.origin) == sorted(folded.origin)
    for start in range(len(folded.text)):
        first, last = folded.source_span(start, len(folded.text))
        assert 0 <= first <= last <= len(source)


def test_a_word_weighs_as_much_as_two_chinese_characters() -> None:
    assert count_units("don't stop") == 4
    assert count_units("及时就医 now") == 6
