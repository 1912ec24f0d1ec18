"""Rows and a short way to deduplicate them, for the tests of duplicates."""

from collections.abc import Sequence

import numpy as np

from training.data.duplicates import Compared, Duplicates, Fingerprints, find_duplicates, fingerprints
from training.data.duplicates_section import DuplicatesSection

Row = tuple[str, str]

ANSWER = (
    "Drink plenty of water and rest for a few days. See your doctor when the fever lasts longer than three days, when breathing becomes "
    "hard, or when a rash appears that stays under a glass pressed on the skin."
)
QUESTION = "My son has had a fever since Monday evening, what should I do?"
CHINESE = (
    "孩子从周一晚上开始发烧，应该怎么处理？",
    "多喝水，注意休息，按体重服用退烧药。如果发热超过三天、呼吸困难或出现皮疹，请及时带孩子去儿科门诊就诊。",
)
TEMPLATE = (
    "You are given one sentence from a review of a hotel. Read it with care, think about the mood of the person who wrote it, and "
    "answer with a single word, which must be either positive or negative, and nothing else. Do not explain your choice. The "
    "sentence to judge is this one: "
)


def find(
    rows: Sequence[Row], section: DuplicatesSection | None = None, weights: Sequence[float] | None = None, chunk: int = 1000
) -> Duplicates:
    section = section or DuplicatesSection()
    parts = [fingerprints([Compared(*row, 0) for row in rows[start : start + chunk]], section) for start in range(0, len(rows), chunk)]
    found = Fingerprints.joined(parts)
    return find_duplicates(
        found, section, lambda numbers: [rows[number] for number in numbers.tolist()], np.array(weights or [1.0] * len(rows))
    )


def instead(rows: Sequence[Row], section: DuplicatesSection | None = None) -> list[int]:
    return list(find(rows, section).kept_instead.tolist())
