"""Blind reviews from the outside: makes one for a judged release, serves its page, closes it, and has the gate decide again.

A review belongs to two scorecards, so judging the same answers again finds it again. Its key lies in a folder of its own, which
nothing reads before the close. Next: `evaluation/review_draw.py`, `evaluation/review_app.py`, `evaluation/review_close.py`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from evaluation.errors import ReviewError
from evaluation.records import Preferences, Scorecard, SideBySide
from evaluation.review_close import close_review
from evaluation.review_draw import Drawn, draw_review
from evaluation.review_export import votes_as_csv
from evaluation.review_records import Review, ReviewResult
from evaluation.review_votes import RESULT_FOLDER, VoteBook, counted
from flows.cases import Case, read_case
from flows.comparing import Together
from flows.display import Display
from flows.judging import Judged, gate, review_folder
from flows.stage_process import StageRequest
from flows.stages import Finished, Line
from serving.lifecycle import State
from serving.registry import Registry
from serving.settings import Settings
from training.atomic import write_text
from training.errors import TunegateError
from training.progress import Report
from training.records import RECORD_NAME, DatasetManifest, MergedModel

KEYS = "review_keys"
_CAN_BE_DECIDED = (State.CANDIDATE, State.AWAITING_APPROVAL)


@dataclass(frozen=True)
class Under:
    """A release with the two scorecards that its review compares."""

    case: Case
    candidate: Scorecard
    champion: Scorecard
    folder: Path
    key_path: Path

    @property
    def review(self) -> Review:
        """The review.

        Raises:
            ReviewError: there is none yet.
        """
        if not (self.folder / RECORD_NAME).exists():
            raise ReviewError(f"{self.case.release} has no review yet", do=f"tunegate review create {self.case.release} --reviewer NAME")
        return Review.read(self.folder)

    @property
    def result(self) -> ReviewResult | None:
        """What came out; None while it is open."""
        folder = self.folder / RESULT_FOLDER
        return ReviewResult.read(folder) if (folder / RECORD_NAME).exists() else None


def under_review(home: Path, release_id: str, against: str | None = None) -> Under:
    """What a release's review compares: with the champion it was judged against, or with another judged release.

    Raises:
        NothingJudged: one of the two was never judged here.
        ReviewError: it was judged without a champion.
    """
    case = read_case(home, release_id)
    other = read_case(home, against).candidate if against and not _is_champion(case, against) else case.champion
    if other is None:
        raise ReviewError(f"{release_id} was judged without a champion", do="compare it with another release: --against RELEASE")
    candidate, champion = Scorecard.read(case.candidate), Scorecard.read(other)
    folder = review_folder(home, candidate.digest, champion.digest)
    return Under(case, candidate, champion, folder, home / KEYS / f"{folder.name}.json")


def create_review(home: Path, release_id: str, reviewers: Sequence[str], count: int, against: str | None = None) -> Drawn:
    """Draw a review and seal its key; the tokens in what is returned are kept nowhere.

    Raises:
        ReviewError: there is one already, or too few answers differ for what the policy asks.
    """
    under = under_review(home, release_id, against)
    if (under.folder / RECORD_NAME).exists():
        raise ReviewError(
            f"{release_id} has a review already: {under.folder}",
            why="a second draw after a look at the votes would not be fair",
            do=f"tunegate review status {release_id}",
        )
    drawn = draw_review(under.candidate, under.champion, reviewers, count, SystemRandom())
    _require_enough(under.case, drawn.review)
    _seal(under.key_path, drawn.key.sealed())
    drawn.review.write(under.folder)
    return drawn


def close_review_of(home: Path, release_id: str, closed_by: str, without: Sequence[str], against: str | None) -> ReviewResult:
    """Open the key and count; the same result again where it is closed already, so that a killed close can be repeated.

    Raises:
        ReviewError: votes are missing.
        RecordError: key, scorecards or votes are not those of the review.
    """
    under = under_review(home, release_id, against)
    done = under.result
    return done or close_review(under.folder, under.key_path, under.candidate, under.champion, closed_by=closed_by, without=without)


def decide_again(settings: Settings, registry: Registry, display: Display, release_id: str, actor: str) -> Judged | None:
    """The gate on the same answers, now with the closed review; None where the release no longer waits, or the champion has changed."""
    case = read_case(settings.home, release_id)
    release = registry.release(release_id)
    live = registry.champion(release.public_name)
    if release.state not in _CAN_BE_DECIDED or case.champion is None or live is None:
        return None
    champion = Finished(Scorecard.read(case.champion), case.champion)
    if champion.record.model_digest != live.model_digest:
        return None
    line = Line(case.recipe, settings, registry, display, actor, _no_stage)
    merged, dataset = Finished(MergedModel.read(case.merged), case.merged), Finished(DatasetManifest.read(case.dataset), case.dataset)
    together = Together(
        Finished(SideBySide.read(case.speed), case.speed) if case.speed else None,
        # A judge that left something open has left no record.
        Finished(Preferences.read(case.preferences), case.preferences)
        if case.preferences and (case.preferences / RECORD_NAME).exists()
        else None,
    )
    return gate(line, release, (Finished(Scorecard.read(case.candidate), case.candidate), champion, together), merged, dataset)


def export_csv(under: Under) -> str:
    """The votes for a spreadsheet."""
    return votes_as_csv(under.review, VoteBook(under.folder).votes(), under.result)


def progress_of(under: Under) -> dict[str, int]:
    """Reviewer -> pairs judged so far. How they judged stays unknown until the close."""
    voted = counted(VoteBook(under.folder).votes())
    return {each.name: sum(reviewer == each.name for reviewer, _ in voted) for each in under.review.reviewers}


def _is_champion(case: Case, against: str) -> bool:
    return case.champion is not None and Scorecard.read(case.champion).subject == against


def _require_enough(case: Case, review: Review) -> None:
    wanted = case.policy.human_review
    if wanted is None:
        return
    faults = []
    if len(review.pairs) < wanted.min_prompts:
        faults.append(
            f"the policy asks for {wanted.min_prompts} prompts, {len(review.pairs)} were drawn of {review.prompts} "
            f"({review.identical} have the same answer twice)"
        )
    if len(review.reviewers) < wanted.min_reviewers:
        faults.append(f"the policy asks for {wanted.min_reviewers} reviewers, {len(review.reviewers)} are named")
    if faults:
        raise ReviewError(
            "; ".join(faults),
            why="the verdict would stay INCONCLUSIVE whatever they say",
            do="raise --n, name more reviewers, enlarge the suite, or lower gate.human_review in the recipe",
        )


def _seal(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(path.parent, 0o700)
    write_text(path, text, mode=0o400)


def _no_stage(request: StageRequest, report: Report) -> None:
    raise TunegateError(f"{request.stage} was asked for while deciding again", do="run the recipe")
