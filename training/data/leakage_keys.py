"""The questions a model was trained on, as hashes in a small file beside the dataset's manifest.

With it an evaluation can be refused long after the training rows are gone: it says whether a prompt was among the questions, letter case,
spacing and punctuation aside, and gives none of them away in clear. Knows nothing of manifests. Next: `leakage.py` finds what is less than
the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np

from training.atomic import write_text
from training.data.leakage import SuitePrompt
from training.data.shingles import Hashes, keys_of, tokens_of
from training.errors import RecordError

_HEADER = "tunegate-train-keys 2"  # raised when the hash of a question changes; a test holds it
_QUESTIONS_AT_ONCE = 4000


@dataclass(frozen=True, slots=True)
class TrainKeys:
    """Sorted distinct 64-bit hashes of questions."""

    keys: Hashes

    @classmethod
    def of(cls, questions: Iterable[str]) -> Self:
        """Keys of questions; one without any word has none."""
        waiting = iter(questions)
        parts = [np.zeros(0, np.uint64)]
        while part := list(islice(waiting, _QUESTIONS_AT_ONCE)):
            parts.append(question_keys(part))
        return cls.from_hashes(np.concatenate(parts))

    @classmethod
    def from_hashes(cls, hashes: Hashes) -> Self:
        """Keys of questions whose hashes are known already: `Fingerprints.questions`, of all rows that are trained on."""
        return cls(np.unique(hashes[hashes != 0]))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a key file.

        Raises:
            RecordError: it is missing, torn, altered or of another version.
        """
        try:
            header, *lines = path.read_text(encoding="ascii").splitlines()
            keys = np.array([int(line, 16) for line in lines], np.uint64)
        except (OSError, ValueError, OverflowError) as error:
            raise _unusable(path, f"cannot be read ({error})") from error
        if header != f"{_HEADER} {len(keys)}" or (keys[1:] <= keys[:-1]).any():
            raise _unusable(path, "is torn, altered or of another version")
        return cls(keys)

    def write(self, path: Path) -> None:
        """Write the keys: a line that says what they are and how many, then one in hexadecimal a line."""
        write_text(path, "".join([f"{_HEADER} {len(self.keys)}\n", *(f"{key:016x}\n" for key in self.keys.tolist())]))

    def contains(self, text: str) -> bool:
        """Whether this question was trained on."""
        return bool(np.isin(question_keys([text]), self.keys)[0])


def question_keys(questions: Sequence[str]) -> Hashes:
    """One hash per question over its words; 0 for a question that has none."""
    return keys_of(tokens_of(questions))


def manifest_overlap(keys: TrainKeys, prompts: Sequence[SuitePrompt]) -> list[SuitePrompt]:
    """The prompts that are among the questions trained on."""
    there = np.isin(question_keys([prompt.text for prompt in prompts]), keys.keys)
    return [prompt for prompt, trained in zip(prompts, there.tolist(), strict=True) if trained]


def _unusable(path: Path, what: str) -> RecordError:
    return RecordError(
        f"the training keys {path} {what}",
        why="without them nobody can say whether an evaluation asks what the model was trained on",
        do="prepare the dataset again",
    )
