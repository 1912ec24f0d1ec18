"""Judges the language and the length of an answer. Knows nothing of phrases. Next: `answer_format.py`."""

from evaluation.evidence import Case, Judgement
from evaluation.text import WORD
from training.data.languages import UNKNOWN, detect

_LEAST_LETTERS = 4  # "Yes." and 好 are too short to be in any language
_LEAST_SURE = 0.6


def judge_language(case: Case, code: str) -> Judgement:
    """The prose must be in this language; code, addresses and answers too short to tell are let through, silence is not."""
    judgement = Judgement()
    found = detect(case.answer, _LEAST_LETTERS)
    if not case.answer.strip():
        judgement.reasons.append(f"is empty, where an answer in '{code}' is expected")
    elif found.code not in (code, UNKNOWN) and found.confidence >= _LEAST_SURE:
        judgement.forbid(case, 0, len(case.answer), "language", f"is in '{found.code}' ({found.confidence:.0%} sure), not in '{code}'")
    return judgement


def judge_length(
    case: Case, *, min_words: int | None, max_words: int | None, min_characters: int | None, max_characters: int | None
) -> Judgement:
    """The answer must be as long as is asked; white space at its ends does not count."""
    judgement = Judgement()
    text = case.answer.strip()
    for count, what, low, high in (
        (sum(1 for _ in WORD.finditer(text)), "words", min_words, max_words),
        (len(text), "characters", min_characters, max_characters),
    ):
        if low is not None and count < low:
            judgement.reasons.append(f"has {count} {what}, at least {low} are asked for")
        if high is not None and count > high:
            judgement.reasons.append(f"has {count} {what}, at most {high} are allowed")
    return judgement
