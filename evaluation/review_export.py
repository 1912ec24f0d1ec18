"""The votes of a blind review as CSV, for a spreadsheet. Before the review is closed it says first and second, and not who that is.

A cell that a spreadsheet would take for a formula gets an apostrophe in front. Next: nothing.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from evaluation.review_records import Review, ReviewResult, Vote
from evaluation.review_votes import counted

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_COLUMNS = ("prompt_id", "topic", "reviewer", "choice", "comment", "at", "question")


def votes_as_csv(review: Review, votes: Sequence[Vote], result: ReviewResult | None) -> str:
    """One line per vote that counts, in the order of the review; once closed, `choice` names candidate or champion."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([_inert(cell) for cell in row] for row in _rows(review, votes, result))
    return out.getvalue()


def _rows(review: Review, votes: Sequence[Vote], result: ReviewResult | None) -> Iterable[tuple[str, ...]]:
    questions = {pair.prompt_id: pair.messages[-1].content for pair in review.pairs}
    if result is not None:
        for opened in result.votes:
            yield opened.prompt_id, opened.topic, opened.reviewer, opened.preference, opened.comment, opened.at, questions[opened.prompt_id]
        return
    for (reviewer, number), vote in sorted(counted(votes).items(), key=lambda item: (item[0][1], item[0][0])):
        pair = review.pairs[number]
        yield pair.prompt_id, pair.topic, reviewer, vote.choice, vote.comment, vote.at, questions[pair.prompt_id]


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell
