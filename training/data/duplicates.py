"""Rows that say the same twice: what is compared, the fingerprint of a row, and which rows are dropped for which.

A fingerprint is made row by row, in any process: a key of the exact text, keys of question and answer, and a MinHash signature of
the shingles. `find_duplicates` works on the fingerprints of all rows at once, and its answer is the same whoever made them. Knows
nothing of files and reports.
Next: `duplicates_clusters.py` finds the groups, `duplicates_same.py` has the last word on a pair.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from training.data.duplicates_characters import composed, mix
from training.data.duplicates_clusters import Clusters, find_clusters, kept
from training.data.duplicates_same import SameRows, Sides
from training.data.duplicates_section import DuplicatesSection, Scope
from training.data.duplicates_signatures import Signatures, signatures_of
from training.data.rows import Example, Labelled, Pair, question_of
from training.data.shingles import Hashes, Positions, keys_of, shingles_of, tokens_of


@dataclass(frozen=True, slots=True)
class Compared:
    """The texts of an example that are compared; only rows of one `group` are."""

    question: str
    answer: str
    group: int

    def text(self, scope: Scope) -> str:
        """What the recipe wants compared."""
        return self.question if scope == "question" else f"{self.question}\n{self.answer}"


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What is remembered of each row; all arrays have one entry per row."""

    exact: Hashes  # (rows, 2)
    questions: Hashes
    answers: Hashes
    groups: Hashes
    lengths: Positions
    signatures: Signatures  # (rows, permutations); (rows, 0) where near duplicates are not looked for

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The fingerprints of several chunks in order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class Duplicates:
    """For each row the row kept in its place (itself when it is kept), and why it is dropped."""

    kept_instead: Positions
    exact: NDArray[np.bool_]
    near: NDArray[np.bool_]
    conflicting: int  # rows whose question is asked again with another answer


def compared(example: Example) -> Compared:
    """What is compared of an example: never its system turn, which thousands of rows share; other system turn, other group."""
    system = [message["content"] for message in example.messages if message["role"] == "system"]
    kind = [type(example).__name__, isinstance(example, Labelled) and example.desirable, *system]
    group = xxhash.xxh3_64_intdigest(json.dumps(kind).encode())
    return Compared(question_of(example), "\n".join(_answers(example)), group)


def fingerprints(rows: Sequence[Compared], section: DuplicatesSection) -> Fingerprints:
    """Fingerprints of a chunk of rows."""
    tokens = tokens_of([text for row in rows for text in (row.question, row.answer)])
    keys = keys_of(tokens)
    compared_tokens = tokens_of([row.question for row in rows]) if section.scope == "question" else tokens.of_each(2)
    return Fingerprints(
        exact=np.array([_exact_key(row.text(section.scope), row.group) for row in rows], np.uint64).reshape(-1, 2),
        questions=keys[::2],
        answers=keys[1::2],
        groups=np.array([row.group for row in rows], np.uint64),
        lengths=np.array([len(row.question) + len(row.answer) for row in rows], np.int64),
        signatures=signatures_of(shingles_of(compared_tokens), section.permutations if section.near else 0),
    )


def find_duplicates(found: Fingerprints, section: DuplicatesSection, sides: Sides, weights: NDArray[np.float64]) -> Duplicates:
    """Which rows are dropped, and for which.

    Args:
        found: of all rows in reading order.
        section: the rules.
        sides: (question, answer) of the rows asked for; only rows that look alike are, and a sample.
        weights: of each row's source, for `keep: highest_weight`.
    """
    all_rows = np.arange(len(found.lengths))
    exact_instead = near_instead = all_rows
    if section.exact:
        clusters = Clusters(_first_of_equals(found.exact), lambda left, right: np.ones(len(left), np.bool_))
        exact_instead = kept(clusters, section.keep, found.lengths, weights)
    exact = exact_instead != all_rows
    if section.near:
        near_instead = kept(_near_clusters(found, section, sides, np.flatnonzero(~exact)), section.keep, found.lengths, weights)
    near = near_instead != all_rows
    return Duplicates(near_instead[exact_instead], exact, near, conflicting(found.questions, found.answers, found.groups))


def conflicting(questions: Hashes, answers: Hashes, groups: Hashes) -> int:
    """How many rows ask a question that another row answers differently."""
    asked = questions != 0
    _, question = np.unique(mix(groups[asked]) ^ questions[asked], return_inverse=True)
    distinct = np.unique(np.stack((question.astype(np.uint64), answers[asked]), axis=1), axis=0)
    several = np.bincount(distinct[:, 0].astype(np.int64), minlength=1) > 1
    return int(several[question].sum())


def _near_clusters(found: Fingerprints, section: DuplicatesSection, sides: Sides, rows: Positions) -> Clusters:
    def wanted(numbers: Positions) -> Sequence[tuple[str, str]]:
        texts = sides(numbers)
        return [(question, "") for question, _ in texts] if section.scope == "question" else texts

    same = SameRows(wanted, rows, section.near_threshold)
    own = partial(same.own_signatures, permutations=section.permutations)
    return find_clusters(found.signatures, section.near_threshold, same, groups=found.groups, among=rows, own_signatures=own)


def _answers(example: Example) -> list[str]:
    """What is not said by the user or the system, tool calls too; then the two answers of a pair."""
    texts = [
        f"{message.get('content') or ''}{json.dumps(message['tool_calls'], sort_keys=True) if message.get('tool_calls') else ''}"
        for message in example.messages
        if message["role"] not in ("user", "system")
    ]
    return [*texts, example.chosen, example.rejected] if isinstance(example, Pair) else texts


def _exact_key(text: str, group: int) -> tuple[int, int]:
    joined = " ".join(composed(text).split())
    return divmod(xxhash.xxh3_128_intdigest(joined.encode("utf-8", "surrogatepass"), group), 1 << 64)


def _first_of_equals(keys: Hashes) -> Positions:
    """For each row of `keys` (rows, 2) the first row equal to it."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    new = np.ones(len(keys), np.bool_)
    new[1:] = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    labels = np.empty(len(keys), np.int64)
    labels[order] = order[new][np.cumsum(new) - 1]
    return labels
