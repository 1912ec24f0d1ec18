"""Rows that were proposed from production, and what people decided about them: nothing is learnt from before somebody has accepted it.

    collected/RECIPE/proposals.json     what waits for a look; made anew by every `collect`, so that it goes when the kept records go
    collected/RECIPE/decisions.jsonl    who accepted or refused what, and when; accepted rows are held whole
    collected/RECIPE/rows-DIGEST/       what has been accepted, as sources of a recipe; one folder for each state that was trained on

Every file is for its owner's eyes only. Knows nothing of where proposals come from. Next: `collecting.py`.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from flows.collect_drafts import DraftKind
from flows.recipe import Recipe
from training.atomic import new_folder, write_text
from training.config import DataSection
from training.data.sources import SourceSection
from training.errors import InputError, RecordError
from training.records import digest_of

SFT_ROWS, PAIRS = "sft.jsonl", "preferences.jsonl"
SOURCE_NAME = "accepted from production"
_PROPOSALS, _DECISIONS = "proposals.json", "decisions.jsonl"
_ID_DIGITS = 12


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Proposal(_Fact):
    """A row that a person may accept, its personal data masked."""

    id: str
    kind: DraftKind
    messages: tuple[dict[str, str], ...]
    better: str = Field(description="what to say; empty where a person has to write it")
    worse: str = Field(description="what not to say; empty where nothing is to be avoided")
    reasons: tuple[str, ...]
    source: str = Field(description="request id or review that it comes from")
    key_id: str = Field(default="", description="whose request it was")


class Choice(_Fact):
    """What somebody says of a proposal; `answer` replaces or supplies the better answer."""

    id: str
    accept: bool
    answer: str | None = Field(default=None, min_length=1, max_length=32_000)


class Decision(_Fact):
    """A choice as it is kept."""

    choice: Literal["accepted", "refused"]
    proposal: Proposal
    by: str
    account: str
    at: str


_MANY: TypeAdapter[list[Proposal]] = TypeAdapter(list[Proposal])


def proposal_id(kind: str, messages: Iterable[dict[str, str]], better: str, worse: str) -> str:
    """The same texts are the same proposal, however often they are collected."""
    return digest_of([kind, list(messages), better, worse])[:_ID_DIGITS]


class CollectBook:
    """Proposals and decisions of one recipe."""

    def __init__(self, home: Path, recipe_name: str) -> None:
        self.folder = home / "collected" / recipe_name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes meanwhile; not to be entered twice."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def replace_proposals(self, proposals: Sequence[Proposal]) -> None:
        """Forget the proposals before; within `locked`."""
        write_text(self.folder / _PROPOSALS, _MANY.dump_json(list(proposals), indent=1).decode(), mode=0o600)

    def waiting(self) -> list[Proposal]:
        """Proposals that nobody has decided about, in the order in which they should be looked at."""
        decided = self.decisions()
        return [each for each in self._proposals() if each.id not in decided]

    def decisions(self) -> dict[str, Decision]:
        """Proposal -> the last decision about it."""
        path = self.folder / _DECISIONS
        if not path.exists():
            return {}
        lines = path.read_text(encoding="utf-8").splitlines()
        try:
            read = [Decision.model_validate_json(line) for line in lines]
        except ValidationError as error:
            raise RecordError(f"{path} cannot be read: {error.errors()[0]['msg']}", do="restore it from a backup") from error
        return {each.proposal.id: each for each in read}

    def decide(self, choices: Sequence[Choice], by: str, account: str) -> list[Decision]:
        """Write what somebody chose; all of it, or nothing.

        Raises:
            InputError: naming every choice that cannot be taken.
        """
        with self.locked():
            known = {each.id: each for each in self._proposals()} | {id_: each.proposal for id_, each in self.decisions().items()}
            if faults := [fault for choice in choices if (fault := _fault(choice, known))]:
                raise InputError("\n".join(faults), why="nothing was decided", do="tunegate collect list RECIPE shows what waits")
            at = datetime.now(UTC).isoformat(timespec="seconds")
            made = [_decision(choice, known[choice.id], by, account, at) for choice in choices]
            path = self.folder / _DECISIONS
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            write_text(path, before + "".join(each.model_dump_json() + "\n" for each in made), mode=0o600)
        return made

    def rows(self) -> Path | None:
        """The folder of what is accepted now, written where it is not there; None while nothing is."""
        accepted = [each.proposal for each in self.decisions().values() if each.choice == "accepted"]
        if not accepted:
            return None
        sft = [_sft_row(each) for each in accepted if each.kind in ("correction", "wanted", "liked")]
        pairs = [_pair(each) for each in accepted if each.worse]
        folder = self.folder / f"rows-{digest_of([sft, pairs])[:_ID_DIGITS]}"
        if not folder.exists():
            with self.locked(), new_folder(folder) as made:
                for name, rows in ((SFT_ROWS, sft), (PAIRS, pairs)):
                    if rows:
                        write_text(made / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), mode=0o600)
        return folder

    def _proposals(self) -> list[Proposal]:
        path = self.folder / _PROPOSALS
        if not path.exists():
            return []
        try:
            return _MANY.validate_json(path.read_bytes())
        except ValidationError as error:
            raise RecordError(f"{path} cannot be read: it was edited or torn", do="tunegate collect run RECIPE makes it anew") from error


def accepted_rows(home: Path, recipe: Recipe) -> Path | None:
    """What a run of this recipe learns from besides its own sources; None where it does not want to, or there is nothing."""
    return CollectBook(home, recipe.name).rows() if recipe.data.collected else None


def with_accepted(recipe: Recipe, rows: Path | None) -> DataSection:
    """The recipe's data, and the accepted rows as further sources; pairs only where the recipe tunes on preferences."""
    if rows is None:
        return recipe.data

    def source(name: str, wanted: bool) -> tuple[SourceSection, ...]:
        return (SourceSection(path=rows / name, name=SOURCE_NAME),) if wanted and (rows / name).exists() else ()

    data = recipe.data
    pairs = source(PAIRS, recipe.preference is not None)
    return data.model_copy(update={"sft": (*data.sft, *source(SFT_ROWS, wanted=True)), "preferences": (*data.preferences, *pairs)})


def _fault(choice: Choice, known: dict[str, Proposal]) -> str | None:
    proposal = known.get(choice.id)
    if proposal is None:
        return f"there is no proposal {choice.id}"
    if choice.accept and not (choice.answer or proposal.better):
        return f"{choice.id} has no better answer yet: say what it should have been"
    if choice.accept and (choice.answer or "").strip() == proposal.worse.strip() != "":
        return f"{choice.id}: the answer is the one that was not good enough"
    return None


def _decision(choice: Choice, proposal: Proposal, by: str, account: str, at: str) -> Decision:
    if choice.accept and choice.answer:
        proposal = proposal.model_copy(update={"better": choice.answer.strip()})
    return Decision(choice="accepted" if choice.accept else "refused", proposal=proposal, by=by, account=account, at=at)


def _sft_row(proposal: Proposal) -> dict[str, Any]:
    return {"messages": [*proposal.messages, {"role": "assistant", "content": proposal.better}]}


def _pair(proposal: Proposal) -> dict[str, Any]:
    return {"messages": list(proposal.messages), "chosen": proposal.better, "rejected": proposal.worse}
