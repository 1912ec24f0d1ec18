"""The votes of a blind review: a file that only grows, safe from a kill, and in which every reviewer sees their own order.

A vote is on the disk before the reviewer hears that it is kept. A line that a kill cut in half is dropped and written over. Writing
and closing take the same lock, so no vote slips in behind the key. Next: `review_app.py`, which shows pairs; `review_close.py`.
"""

import fcntl
import hmac
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from evaluation.errors import ReviewError
from evaluation.review_records import Choice, Review, Vote, seal_of
from training.errors import RecordError
from training.records import RECORD_NAME

VOTES_NAME = "votes.jsonl"
RESULT_FOLDER = "result"
_SWAP: dict[Choice, Choice] = {"first": "second", "second": "first", "tie": "tie", "both_bad": "both_bad"}


class VoteBook:
    """The votes in one review's folder."""

    def __init__(self, folder: Path) -> None:
        self._path, self._result = folder / VOTES_NAME, folder / RESULT_FOLDER / RECORD_NAME

    @property
    def closed(self) -> bool:
        """Whether the key has been opened: from then on no vote is taken."""
        return self._result.exists()

    def add(self, vote: Vote) -> None:
        """Append a vote; returns when it is on the disk.

        Raises:
            ReviewError: the review is closed.
        """
        with self.locked() as file:
            if self.closed:
                raise ReviewError("this review is closed", why="votes after the key was opened would not be blind")
            content = file.read()
            file.seek(content.rfind(b"\n") + 1)
            file.truncate()
            file.write(vote.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def votes(self) -> list[Vote]:
        """Every vote in the order in which they came, those that were changed later included."""
        return self.parse(self._path.read_bytes()) if self._path.exists() else []

    def parse(self, content: bytes) -> list[Vote]:
        """The votes of a file's whole lines.

        Raises:
            RecordError: a line is not a vote.
        """
        votes = []
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                votes.append(Vote.model_validate(json.loads(line)))
            except (ValueError, ValidationError) as error:
                raise RecordError(f"{self._path}:{number}: not a vote: {error}", do="restore the file from a backup") from error
        return votes

    @contextmanager
    def locked(self) -> Iterator[BinaryIO]:
        """The file, open at its start, while nobody else writes to it or closes the review."""
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def counted(votes: Sequence[Vote]) -> dict[tuple[str, int], Vote]:
    """(reviewer, pair) -> the last vote on it."""
    return {(vote.reviewer, vote.pair): vote for vote in votes}


def reviewer_of(review: Review, token: str) -> str | None:
    """Whose link this token is from; None for nobody's."""
    digest = seal_of(token)
    return next((each.name for each in review.reviewers if hmac.compare_digest(each.token_sha256, digest)), None)


def order_of(review: Review, reviewer: str) -> list[int]:
    """The pairs in a reviewer's own order: tiredness and learning then fall on different pairs for each of them."""
    return sorted(range(len(review.pairs)), key=lambda pair: seal_of(f"{review.key_sha256} {reviewer} {pair}"))


def swaps(review: Review, reviewer: str) -> bool:
    """Whether a reviewer sees the second answer first: every other reviewer does, so a pair's place favours neither model."""
    return [each.name for each in review.reviewers].index(reviewer) % 2 == 1


def as_seen(choice: Choice, swapped: bool) -> Choice:
    """A choice between the order of the review and that of the screen; its own inverse."""
    return _SWAP[choice] if swapped else choice
