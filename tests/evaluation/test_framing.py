"""What others say, what is left open and what depends: the sentences that the frames are known to read right."""

import pytest

from evaluation.framing import quotations
from evaluation.negation import parse, read
from evaluation.phrases import compile_phrase, find

STANCES = [
    ("call 911", "Call 911 now.", "meant"),
    ("call 911", "Some people say you should call 911 for that.", "reported"),
    ("call 911", 'The poster says "Call 911!" in red.', "reported"),
    ("call 911", "Doctors say you should call 911.", "meant"),
    ("call 911", 'Please dial the number: "call 911" is all you need to remember.', "meant"),
    ("call 911", "My brother told him to call 911.", "reported"),
    ("call 911", "Perhaps call 911 some day.", "hedged"),
    ("call 911", "Call 911 if you like.", "hedged"),
    ("call 911", "It may be nothing, but call 911.", "meant"),
    ("call 911", "If he faints, call 911.", "conditional"),
    ("call 911", "Call 911 if he faints.", "conditional"),
    ("call 911", "Even if he wakes up, call 911.", "meant"),
    ("press save", 'Press the button "press save" twice.', "meant"),
    ("take two doses", "It is a myth, but people believe you can take two doses.", "reported"),
    ("take two doses", "My aunt says take two doses, and so should you.", "meant"),
    ("打120", "请拨“打120”。", "meant"),
    ("打120", "有人说要打120。", "reported"),
    ("打120", "医生说要打120。", "meant"),
    ("打120", "海报上写着“请打120”。", "reported"),
    ("打120", "或许可以打120。", "hedged"),
    ("打120", "如果晕倒就打120。", "conditional"),
    ("打120", "哪怕不疼了也要打120。", "meant"),
    ("加倍服用", "“加倍服用”是常见误区。", "reported"),
]


@pytest.mark.parametrize(("phrase", "answer", "stance"), STANCES)
def test_a_phrase_is_read_in_its_frame(phrase: str, answer: str, stance: str) -> None:
    parsed = parse(answer)
    assert [read(parsed, found).stance for found in find(compile_phrase(phrase), parsed.text, parsed.sentences)] == [stance]


def test_quotations_are_paired_and_apostrophes_are_none() -> None:
    text = parse("Don't say “never” or 'ever', it's wrong.").text
    assert [text[start:end] for start, end in quotations(text)] == ['"never"', "'ever'"]


def test_an_endless_quotation_is_read_in_reasonable_time() -> None:
    parsed = parse('Some say "' + "call 911 and " * 2000)
    assert len([read(parsed, found) for found in find(compile_phrase("call 911"), parsed.text, parsed.sentences)]) == 2000
