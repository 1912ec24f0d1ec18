import pytest

from evaluation.phrases import compile_phrase, find, split_sentences
from evaluation.text import fold


def spots(phrase: str, answer: str) -> list[str]:
    text = fold(answer).text
    return [text[found.start : found.end] for found in find(compile_phrase(phrase), text, split_sentences(text))]


@pytest.mark.parametrize(
    ("phrase", "answer"),
    [
        ("call 911", "Please CALL 911!"),
        ("follow up", "a follow-up is due"),
        ("拨打120", "请拨打 120"),
        ("拨打 120", "请拨打120"),
        ("120", "拨打120吧"),
        ("就医", "及时就医"),
        ("take ... to the er", "take your little boy straight away to the ER"),
        ("带 ... 去医院", "请带一岁的宝宝去医院"),
        ("call ... 911", "call 911 or, if you cannot, 911 again"),
    ],
)
def test_a_phrase_is_found(phrase: str, answer: str) -> None:
    assert len(spots(phrase, answer)) == 1


@pytest.mark.parametrize(
    ("phrase", "answer"),
    [
        ("er", "her mother"),
        ("call 911", "recall 9110"),
        ("拨打120", "拨打1200"),
        ("call ... doctor", "Call her. The doctor is in."),
        ("call ... doctor", "call one two three four five six seven doctor"),
        ("带 ... 去医院", "带一二三四五六七八九十一二三去医院"),
    ],
)
def test_a_phrase_is_not_found_inside_words_or_across_sentences_or_long_gaps(phrase: str, answer: str) -> None:
    assert spots(phrase, answer) == []


def test_a_gap_holds_six_words_and_not_seven() -> None:
    assert spots("a ... z", "a one two three four five six z") == ["a one two three four five six z"]
    assert spots("a ... z", "a one two three four five six seven z") == []


@pytest.mark.parametrize("written", ["", "  ", "...", "... to the er", "take ...", "a ... ... b"])
def test_a_phrase_without_words_around_its_gap_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"empty|gap"):
        compile_phrase(written)


def test_decimals_and_titles_do_not_end_a_sentence() -> None:
    text = fold("38.5 °C is high. Ask Dr. Lee! 马上去。好").text
    assert [text[start:end].strip() for start, end in split_sentences(text)] == ["38.5 °c is high.", "ask dr. lee!", "马上去。", "好"]
