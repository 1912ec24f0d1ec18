"""Rows for the benchmark of near duplicates: made-up ones by the million, real ones, and copies with known edits.

Made-up rows are of 20,000 words drawn by Zipf's law, about 300 characters, one in ten a near copy of an earlier row with up to
three words exchanged. Next: `data_duplicates.py`.
"""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = tuple[str, str]
Edit = Callable[[Row, random.Random], Row]
DATA = Path(__file__).parents[2].parent / "shared" / "data"
CHUNK, WORDS_PER_ROW, PLANTED = 4000, 44, 0.1


# ---- rows ------------------------------------------------------------------------------------------------------------------


def made_up_rows(count: int, seed: int = 3) -> tuple[list[Row], dict[int, int]]:
    """Rows of about 300 characters, and which of them is a near copy of which."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = np.array(["".join(rng.choice(letters[:18], size)) for size in rng.integers(3, 10, 20_000)])
    share = 1 / np.arange(10, 20_010)
    share /= share.sum()
    rows: list[Row] = []
    copies: dict[int, int] = {}
    for start in range(0, count, CHUNK):
        drawn = words[rng.choice(len(words), (min(CHUNK, count - start), WORDS_PER_ROW), p=share)]
        for number, row in enumerate(drawn.tolist(), start=start):
            if number > 10 and rng.random() < PLANTED:
                copies[number] = int(rng.integers(0, number))
                rows.append(_near_copy(rows[copies[number]], words, rng))
            else:
                rows.append((" ".join(row[:10]), " ".join(row[10:])))
    return rows, copies


def _near_copy(row: Row, words: Any, rng: np.random.Generator) -> Row:
    answer = row[1].split()
    for place in rng.integers(0, len(answer), rng.integers(0, 4)):
        answer[place] = str(words[rng.integers(0, len(words))])
    return row[0], " ".join(answer)


def medquad() -> list[dict[str, str]]:
    """English consumer-health questions, full of templates."""
    return [json.loads(line) for line in (DATA / "med_en" / "medquad.jsonl").read_text(encoding="utf-8").splitlines()]


def huatuo() -> list[Row]:
    """Chinese medical questions."""
    rows = [json.loads(line) for line in (DATA / "med_zh" / "alpaca.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["instruction"] + row["input"], row["output"]) for row in rows]


# ---- edits -----------------------------------------------------------------------------------------------------------------

_ENGLISH, _CHINESE = "abcdefghijklmnopqrstuvwxyz", "的患者可能需要进行检查治疗症状疾病医生建议药物手术感染"
_WIDE = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(33, 127)} | {"，": ",", "。": ".", "：": ":"})


def _one_letter(text: str, rng: random.Random, letters: str = _ENGLISH) -> str:
    place = rng.choice([number for number, letter in enumerate(text) if letter.isalpha()] or [0])
    return text[:place] + rng.choice(letters) + text[place + 1 :]


def _swap(text: str, rng: random.Random) -> str:
    words = text.split()
    place = rng.randrange(max(1, len(words) - 1))
    words[place : place + 2] = reversed(words[place : place + 2])
    return " ".join(words)


def _some_words(share: float, pool: Sequence[str], joiner: str) -> Callable[[str, random.Random], str]:
    def edit(text: str, rng: random.Random) -> str:
        parts = text.split() if joiner else list(text)
        return joiner.join(rng.choice(pool) if rng.random() < share else part for part in parts)

    return edit


def edits(language: str, answers: Sequence[str]) -> dict[str, Edit]:
    """Kinds of edit, from the lightest to the heaviest."""
    english = language == "en"
    pool = [part for answer in answers[:500] for part in (answer.split() if english else answer)]
    letters, joiner = (_ENGLISH, " ") if english else (_CHINESE, "")
    closing = " Please talk to your doctor if you have any questions." if english else "如有不适请及时就医。"
    bare = str.maketrans(dict.fromkeys(",.;:!?()，。；：！？（）、", " "))
    kinds: dict[str, Edit] = {
        "punctuation and case": lambda row, _: (row[0].translate(bare).upper(), row[1].translate(bare).upper()),
        "half width / full width": lambda row, _: (row[0].translate(_WIDE), row[1].translate(_WIDE)),
        "one letter in the answer": lambda row, rng: (row[0], _one_letter(row[1], rng, letters)),
        "one letter in the question": lambda row, rng: (_one_letter(row[0], rng, letters), row[1]),
        "two words swapped": lambda row, rng: (row[0], _swap(row[1], rng)),
        "a sentence added": lambda row, _: (row[0], row[1] + closing),
    }
    for share in (0.05, 0.1, 0.2, 0.3):
        some = _some_words(share, pool, joiner)
        kinds[f"{share:.0%} of the answer's words"] = lambda row, rng, some=some: (row[0], some(row[1], rng))  # type: ignore[misc]
    some = _some_words(0.1, pool, joiner)
    kinds["10% of all words"] = lambda row, rng: (some(row[0], rng), some(row[1], rng))
    if not english:
        del kinds["two words swapped"]
    return kinds
