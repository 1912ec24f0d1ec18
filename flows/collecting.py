"""Turns what production has shown into proposals that a person may accept; the accepted ones are rows of the next `retrain`.

Kept answers and closed reviews become drafts; drafts go through the recipe's own data preparation, with personal data masked whatever
the recipe says, duplicates and overlaps with its suites taken out, every row accounted for. A review's prompts are a suite's, so its
pairs are only learnt from once no suite of the recipe asks them. Next: `collect_drafts.py`, `collect_book.py`.
"""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.review_close import open_key
from evaluation.review_records import Review, ReviewResult
from evaluation.review_votes import RESULT_FOLDER
from evaluation.suite import load_suite
from flows.collect_book import Choice, CollectBook, Decision, Proposal, proposal_id
from flows.collect_drafts import Broken, Draft, draft_of, drafts_of_review, in_order
from flows.judging import REVIEWS
from flows.recipe import Recipe
from flows.reviewing import KEYS
from flows.stage_process import judged_by, suite_prompts
from serving.audit_log import Entry
from serving.kept_records import KeptTraffic, Turn
from serving.live_rules import LiveRules
from serving.registry import Registry
from serving.settings import Settings
from training.data.accounting import REJECTED, Ledger
from training.data.balance import BalanceSection
from training.data.config import DataSection
from training.data.crew import Stage
from training.data.gather import Gathered, gather
from training.data.privacy import Masker, PrivacySection
from training.data.profile_builder import ProfileBuilder
from training.data.refine import Measured
from training.data.rows import Example, Pair
from training.data.sources import SourceSection
from training.errors import DataError, InputError
from training.progress import Report
from training.records import RECORD_NAME

MOST = 1000
_DRAFTS = ".drafts"
_LABELS: dict[Stage, str] = {"sft": "answers", "dpo": "pairs"}


@dataclass(frozen=True)
class Collected:
    """What a collection found. Of `drafts`, `left` were more than was asked for, and `dropped` says why others are not proposed."""

    kept: int
    drafts: int
    left: int
    dropped: Counter[str]
    proposals: tuple[Proposal, ...]
    waiting: int
    rejected: Path


def collect(recipe: Recipe, settings: Settings, registry: Registry, report: Report, most: int = MOST) -> Collected:
    """Propose rows from everything that is kept now; what was decided before stays decided.

    Args:
        most: proposals made at most, the most telling first: somebody has to look at each.

    Raises:
        DataError: another collection runs.
    """
    book = CollectBook(settings.home, recipe.name)
    kept = KeptTraffic(settings.kept_folder, recipe.serving.public_name)
    with _alone(book.folder):
        answers, found = _drafts(recipe, settings, registry, kept)
        drafts = in_order(found)
        proposals, dropped = _prepared(recipe, drafts[:most], book.folder, report)
        with book.locked():
            book.replace_proposals(proposals)
        waiting = len(book.waiting())
    left = max(len(drafts) - most, 0)
    return Collected(answers, len(drafts), left, dropped, tuple(proposals), waiting, book.folder / REJECTED)


def decide(
    recipe: Recipe, settings: Settings, registry: Registry, choices: Sequence[Choice], by: str, account: str
) -> tuple[list[Decision], Path | None]:
    """Take a person's choices; returns them as kept, and the folder of all that is accepted now.

    Raises:
        InputError: naming every choice that cannot be taken, an answer that breaks a critical rule included.
    """
    book, broken = CollectBook(settings.home, recipe.name), rules_of(recipe)
    masker = Masker(_privacy(recipe))
    written = [each.model_copy(update={"answer": masker.mask([each.answer]).texts[0]}) if each.answer else each for each in choices]
    known = {each.id: each for each in book.waiting()}
    faults = [
        f"{choice.id}: that answer breaks {fault.rule_id}: {fault.reason}"
        for choice in written
        if choice.answer and choice.accept and choice.id in known
        for fault in broken(known[choice.id].messages, choice.answer)
        if fault.severity == "critical"
    ]
    if faults:
        raise InputError("\n".join(faults), why="nothing was decided", do="write an answer that keeps every critical rule")
    made, rows = book.decide(written, by, account), book.rows()
    facts = {"accepted": sum(each.choice == "accepted" for each in made), "refused": sum(each.choice == "refused" for each in made)}
    registry.note(
        Entry("data.decided", recipe.name, by, datetime.now(UTC), account=account, facts=facts | {"rows": rows.name if rows else ""})
    )
    return made, rows


def rules_of(recipe: Recipe) -> Broken:
    """What the next model of the recipe will be judged by, for conversations that somebody really had."""
    rules = LiveRules([load_suite(folder) for folder in recipe.evaluation.suites])

    def broken(messages: Sequence[Turn], answer: str) -> Sequence[Any]:
        return rules.broken([(turn["role"], turn["content"]) for turn in messages], answer)

    return broken


def in_words(name: str, collected: Collected) -> str:
    """A collection as Markdown: numbers and reasons, none of anybody's words."""
    kinds = Counter(each.kind for each in collected.proposals)
    lines = [f"# {name}: {collected.waiting} proposals wait for a look", ""]
    lines += [f"{collected.kept} kept answers and the closed reviews gave {collected.drafts} drafts.", "", "| | rows |", "| --- | --- |"]
    lines += [f"| proposed: {kind} | {count} |" for kind, count in sorted(kinds.items())]
    lines += [f"| dropped: {reason} | {count} |" for reason, count in sorted(collected.dropped.items())]
    lines += [f"| left for the next time | {collected.left} |"] if collected.left else []
    return "\n".join([*lines, "", f"`tunegate collect review RECIPE --as NAME` shows them one by one ({name})."])


def _drafts(recipe: Recipe, settings: Settings, registry: Registry, kept: KeptTraffic) -> tuple[int, list[Draft]]:
    """How many answers were looked at, and the drafts of them and of the reviews, in the order in which they came."""
    broken, answers, drafts = rules_of(recipe), 0, list[Draft]()
    for exchange in kept:
        answers += 1
        if (draft := draft_of(exchange, broken)) is not None:
            drafts.append(draft)
    return answers, [*drafts, *_of_reviews(settings.home, {each.id for each in registry.releases(recipe.serving.public_name)})]


def _of_reviews(home: Path, releases: set[str]) -> Iterator[Draft]:
    for folder in sorted((home / REVIEWS).glob("*")):
        if not (folder / RESULT_FOLDER / RECORD_NAME).exists():
            continue  # open: nobody may look yet
        review = Review.read(folder)
        if review.release in releases:
            key = open_key(review, home / KEYS / f"{folder.name}.json")
            yield from drafts_of_review(review, ReviewResult.read(folder / RESULT_FOLDER), key)


def _prepared(recipe: Recipe, drafts: Sequence[Draft], folder: Path, report: Report) -> tuple[list[Proposal], Counter[str]]:
    """Every step of data preparation over the drafts; what is left, in their order."""
    by_stage: dict[Stage, list[Draft]] = {
        "sft": [draft for draft in drafts if not (draft.better and draft.worse)],
        "dpo": [draft for draft in drafts if draft.better and draft.worse],
    }
    by_stage = {stage: some for stage, some in by_stage.items() if some}
    if not by_stage:
        return [], Counter()
    with _folder_for(folder / _DRAFTS) as place:
        wanted = [(stage, _written(place / f"{stage}.jsonl", stage, some)) for stage, some in by_stage.items()]
        prompts = suite_prompts([load_suite(suite) for suite in judged_by(recipe)])
        section = _section(recipe, [source for _, source in wanted])
        with Ledger(folder / REJECTED) as ledger:
            gathered = gather(section, wanted, prompts, None, lambda: _as_json, ledger, ProfileBuilder(), place, report)
            tally = ledger.close()
        stages = list(by_stage)
        made = {id(draft): proposal for draft, proposal in _proposals(gathered, [by_stage[stage] for stage in stages])}
        gathered.spool.close()
    return [made[id(draft)] for draft in drafts if id(draft) in made], tally.total().dropped


def _proposals(gathered: Gathered, drafts: Sequence[Sequence[Draft]]) -> Iterator[tuple[Draft, Proposal]]:
    for row in gathered.used():
        draft = drafts[row.source][row.place.line - 1]
        said = json.loads(gathered.spool.line(row))
        better, worse = (said["chosen"], said["rejected"]) if draft.better and draft.worse else (said["answer"], "")
        if draft.kind == "wanted":
            better, worse = "", better
        name = proposal_id(draft.kind, said["messages"], better, worse)
        yield (
            draft,
            Proposal(
                id=name,
                kind=draft.kind,
                messages=tuple(said["messages"]),
                better=better,
                worse=worse,
                reasons=draft.reasons,
                source=draft.source,
                key_id=draft.key_id,
            ),
        )


def _written(path: Path, stage: Stage, drafts: Sequence[Draft]) -> SourceSection:
    with path.open("w", encoding="utf-8") as file:
        for draft in drafts:
            file.write(json.dumps(_row(draft, stage), ensure_ascii=False) + "\n")
    return SourceSection(path=path, name=_LABELS[stage])


def _row(draft: Draft, stage: Stage) -> dict[str, Any]:
    if stage == "dpo":
        return {"messages": list(draft.messages), "chosen": draft.better, "rejected": draft.worse}
    return {"messages": [*draft.messages, {"role": "assistant", "content": draft.better or draft.worse}]}


def _as_json(example: Example) -> Measured:
    """The row as it came out of the steps; what it weighs in tokens is for the run to say."""
    if isinstance(example, Pair):
        said: dict[str, Any] = {"messages": list(example.messages), "chosen": example.chosen, "rejected": example.rejected}
    else:
        said = {"messages": list(example.messages[:-1]), "answer": example.messages[-1]["content"]}
    return Measured(json.dumps(said, ensure_ascii=False).encode(), 1, 1)


def _section(recipe: Recipe, sources: Sequence[SourceSection]) -> DataSection:
    """The recipe's steps, over other sources; nothing is weighed, and nothing only reported."""
    data = recipe.data
    return data.model_copy(
        update={
            "sft": tuple(sources),
            "preferences": (),
            "min_tokens": 1,
            "privacy": _privacy(recipe),
            "leakage": data.leakage.model_copy(update={"action": "remove"}),
            "balance": BalanceSection(),
            "folds": None,
        }
    )


def _privacy(recipe: Recipe) -> PrivacySection:
    return recipe.data.privacy.model_copy(update={"enabled": True, "mode": "mask"})


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(folder / ".collecting", os.O_RDWR | os.O_CREAT, 0o600)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another collection of {folder.name} runs", do="wait for it; both would find the same") from None
        yield


@contextmanager
def _folder_for(place: Path) -> Iterator[Path]:
    """An empty folder of one's own; what a killed collection left is swept."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
