"""From an approval to traffic: the evidence is checked once more, the slot is up, and the registry switches, at once or by steps.

Everything that may fail happens before the first transition; after it the gateway only has to look. Next: `rollout.py`, the steps.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import aiohttp
from pydantic import SecretStr

from evaluation.parity_records import ParityReport
from evaluation.records import Verdict
from flows.display import Display, make_console
from flows.errors import NoRoom, RecipeError, ServingFailed
from flows.judging import PARITY_FOLDER, evidence_digest
from flows.recipe import load_recipe
from flows.rollout import follow, has_steps, start_and_follow
from flows.serving_control import ensure_server, open_registry, start_slot, wait_for_slot
from flows.timing import timed
from serving import releases
from serving.approvals import Standing
from serving.artefact import verify_artefact
from serving.artefact_store import bring
from serving.errors import EvidenceMismatch, RunUnderWay
from serving.lifecycle import State
from serving.records import Release
from serving.registry import Registry
from serving.run_leases import promotion_of
from serving.settings import Settings, load_settings

# The slot of a release about to be promoted; as champion it needs no lease.
PROMOTION_LEASE_S = 900.0
_ROUTED_WITHIN_S = 10.0
_TURN_S = 0.5
_REASON_CHARACTERS = 500
_RELEASE_HEADER = "x-tunegate-release"


def check_evidence(release: Release) -> str:
    """The digest of what is on disk now; it must be what was approved.

    Raises:
        EvidenceMismatch: the verdict, the parity report or the model is not what was signed.
        RecordError: a record or a file of the model is missing or altered.
    """
    if release.report_path is None or release.evidence_digest is None:
        raise EvidenceMismatch(f"{release.id} was never submitted with evidence", do="tunegate run RECIPE")
    verify_artefact(release)
    folder = release.report_path.parent
    found = evidence_digest(release.model_digest, Verdict.read(folder), ParityReport.read(folder / PARITY_FOLDER))
    if found != release.evidence_digest:
        raise EvidenceMismatch(
            f"{release.id}: the evidence on disk is {found[:12]}, signed was {release.evidence_digest[:12]}",
            why="an approval holds for one model and one verdict",
            do="run the recipe again and have the new verdict approved",
        )
    return found


def check_recipe(approval: Standing, release: Release) -> None:
    """Let a release pass whose recipe still says what it said when its approval was asked for.

    Raises:
        EvidenceMismatch: the recipe was changed, or is gone.
    """
    if approval.recipe_path is None:
        return  # submitted by code, not from a file
    try:
        found = load_recipe(approval.recipe_path).digest
    except RecipeError as error:
        found = error.what
    if found != approval.recipe_digest:
        raise EvidenceMismatch(
            f"{release.id} was made by recipe {(approval.recipe_digest or 'none')[:12]}; {approval.recipe_path} is another one now",
            why="what was approved would be promoted under terms that nobody has seen",
            do=f"put the recipe back, or: tunegate reject {release.id} --as NAME, and run the new one",
        )


@dataclass(frozen=True)
class Switchboard:
    """What a promotion needs: where releases are kept, how slots are reached, and who is told."""

    settings: Settings
    registry: Registry
    display: Display


@contextmanager
def open_switchboard() -> Iterator[Switchboard]:
    """Everything a promotion needs, from the settings."""
    settings = load_settings()
    with open_registry(settings) as registry:
        yield Switchboard(settings, registry, Display(make_console()))


def switch(board: Switchboard, release: Release, actor: str) -> Release:
    """Give an approved release the traffic of its public name, by steps if its recipe has some; the champion stays warm for a rollback.

    One process at a time promotes a release; another one, as a command beside the flow that the approval started, waits for its end and
    finds what it has done. Where one died while its canary went on, the canary is followed to its end.

    Raises:
        RunUnderWay: the other one has not ended within the settings' `turn_timeout_s`.
        PromotionEnded: a step did not pass.
    """
    with ExitStack() as turn:
        _take_turn(board, promotion_of(release.id), actor, turn)
        release = board.registry.release(release.id)  # a try before this one may have begun its canary, or ended it
        if release.state is State.LIVE:
            return release
        live = _followed(board, release) if release.state is State.CANARY else _switched(board, release, actor)
    board.registry.release_slot(release.id)
    return live


def _take_turn(board: Switchboard, work: str, actor: str, turn: ExitStack) -> None:
    began, told = time.monotonic(), False
    while True:
        try:
            turn.enter_context(board.registry.runs.held(work, actor))
            return
        except RunUnderWay as other:
            if time.monotonic() - began >= board.settings.turn_timeout_s:
                raise _not_waited_for(other, board.settings.turn_timeout_s) from other
            if not told:
                board.display.say(f"  {other.what}; its end is waited for")
            told = True
            time.sleep(_TURN_S)


def _not_waited_for(other: RunUnderWay, limit_s: float) -> RunUnderWay:
    return RunUnderWay(
        f"{other.what}; its end was waited for, {limit_s:g} s long",
        why="two at once could undo what the other has done",
        do="tunegate rollout status tells how far it is; stop it if it hangs, or raise TUNEGATE_TURN_TIMEOUT_S, and promote again",
    )


def _followed(board: Switchboard, release: Release) -> Release:
    """The steps are the server's to take: what is missing is somebody who waits for their end."""
    with timed(board.settings.home, release.public_name, "promote"):
        ensure_server(board.settings, board.registry)
        with board.display.stage(f"roll out {release.id}") as shown:
            return follow(board.registry, release.id, shown.report)


def _switched(board: Switchboard, release: Release, actor: str) -> Release:
    releases.check_approved(release)
    board.registry.approvals.check_still_holds(release.id)
    check_recipe(board.registry.approvals.standing(release.id), release)
    with timed(board.settings.home, release.public_name, "promote"):
        bring(board.settings, release)
        evidence = check_evidence(release)
        try:
            with board.display.stage(f"start {release.id}") as shown:
                start_slot(board.registry, board.settings, release, PROMOTION_LEASE_S, shown.report)
        except NoRoom as error:
            return exchange(board, release, evidence, actor, error)
        if has_steps(board.registry, release):
            return start_and_follow(board.display, board.registry, release, evidence, actor)
        return board.registry.promote(release.id, evidence, actor)


def exchange(board: Switchboard, release: Release, evidence: str, actor: str, no_room: NoRoom) -> Release:
    """Promote first and start then, in the champion's place, while requests wait; what does not come up is rolled back.

    Raises:
        NoRoom: the recipe wants steps, and those need two engines.
        ServingFailed: it did not come up; the champion before it is live again.
    """
    if has_steps(board.registry, release):
        raise NoRoom(no_room.what, why="steps need two engines at once", do="make room, or remove serving.rollout.steps") from no_room
    board.display.say(f"  {no_room.what}; it takes the champion's place, and requests wait")
    live = board.registry.promote(release.id, evidence, actor)
    try:
        with board.display.stage(f"start {release.id}") as shown:
            wait_for_slot(board.registry, board.settings, live, shown.report)
    except ServingFailed as error:
        before = board.registry.rollback(release.public_name, actor, f"did not come up: {error.what}"[:_REASON_CHARACTERS])
        board.registry.release_slot(release.id)
        with board.display.stage(f"start {before.id}") as shown:
            wait_for_slot(board.registry, board.settings, before, shown.report)
        # Not to be tried again, as an engine that ended may be: the release is rolled back for good.
        raise ServingFailed(error.what, why=f"{before.id} is live again", do=error.do) from error
    return live


async def wait_until_routed(base_url: str, key: SecretStr, release: Release, *, within_s: float = _ROUTED_WITHIN_S) -> float:
    """Ask the gateway until this release answers; returns the seconds it took.

    Raises:
        ServingFailed: another release, or nobody, still answers after `within_s` seconds.
    """
    began = time.monotonic()
    body = {"model": release.public_name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    async with _session(key) as session:
        while time.monotonic() - began < within_s:
            with suppress(aiohttp.ClientError, TimeoutError):  # nobody answers: to be asked again until the time is up
                async with session.post(f"{base_url}/v1/chat/completions", json=body) as answer:
                    if answer.status == 200 and answer.headers.get(_RELEASE_HEADER) == release.id:
                        return time.monotonic() - began
            await asyncio.sleep(0.1)
    raise ServingFailed(f"the gateway does not answer with {release.id}", do="tunegate status")


@asynccontextmanager
async def _session(key: SecretStr) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session
