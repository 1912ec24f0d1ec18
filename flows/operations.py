"""The flows around `retrain` and `promote`: judge a release again, roll back, watch a new champion, look for new data,
collect some from production, take up promotions that were left behind.

Prefect draws its forms from the types and from each docstring's `Args`. Plain logic lies in `watching.py`, `new_data.py`, `collecting.py`.
Next: `deployments.py`, which has them run by themselves.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from evaluation.records import Scorecard
from evaluation.suite import load_suite
from flows import collecting, judging, new_data
from flows.artifacts import of_scorecard, show
from flows.cases import read_case
from flows.display import Display, make_console
from flows.errors import ServingFailed
from flows.events import DATA_CHANGED, announce
from flows.own_prefect import server_of_the_user
from flows.prefect_events import tell_prefect
from flows.progress_artifacts import shown_in_prefect
from flows.promotion import Switchboard, open_switchboard
from flows.recipe import load_recipe
from flows.retrying import patient
from flows.rollout import go_back
from flows.serving_control import open_registry
from flows.stages import open_line_of
from flows.unfinished import announce_again, begin_trainings_again, left_behind, promotions_ahead
from flows.watching import Counts, Finding, WatchPolicy, fetch_counts, judge
from serving.errors import UnknownRelease
from serving.records import Release
from serving.settings import load_settings
from training.progress import silent

ReleaseId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}-[0-9]{1,9}$")]
PublicName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Actor = Annotated[str, Field(min_length=1, max_length=200)]
Reason = Annotated[str, Field(min_length=1, max_length=2000)]

_question, _gather = patient(judging.evaluate), patient(collecting.collect)

WatchEnd = Literal["held", "rolled back", "too few requests", "superseded"]


class Watched(BaseModel):
    """How a watch ended."""

    model_config = ConfigDict(frozen=True)

    release: str
    end: WatchEnd
    reason: str
    seconds: float


@flow(name="evaluate", persist_result=False)
def evaluate_again(
    release_id: ReleaseId,
    suite: Path | None = None,
    requester: Actor = "evaluate",
) -> Scorecard:
    """Question a release once more, on another suite for instance. Writes a scorecard; changes nothing about the release.

    Args:
        release_id: a release that was judged, e.g. clinic-2
        suite: folder of another suite; empty: the recipe's own
        requester: who asks for it
    """
    case = read_case(load_settings().home, release_id)
    section = case.recipe.evaluation
    if suite is not None:
        load_suite(suite)  # all of its faults, before an engine is started
        section = section.model_copy(update={"suite": suite.absolute(), "also": ()})
    with open_line_of(case.recipe.model_copy(update={"evaluation": section}), requester) as opened:
        line = shown_in_prefect(opened)
        release = line.registry.release(release_id)
        card = _question(line, release)
        line.registry.release_slot(release_id)
        show(of_scorecard(card), "scorecard", release_id, line.display)
    return card.record


@flow(name="rollback", persist_result=False)
def roll_back(public_name: PublicName, actor: Actor, reason: Reason) -> Release:
    """Put the champion before this one back in production; instant while its slot is warm.

    Args:
        public_name: the model name callers use, e.g. clinic
        actor: who asks for it; kept in the release's history
        reason: why; kept in the release's history
    """
    with open_switchboard() as board:
        champion = go_back(board.settings, board.registry, public_name, actor, reason, silent)
        tell_prefect(board.registry)
    return champion


@flow(name="watch", persist_result=False)
def watch(public_name: PublicName, policy: WatchPolicy = WatchPolicy()) -> Watched:  # noqa: B008  # frozen
    """Watch the champion by the gateway's own numbers, and put the one before it back when it breaks the policy.

    Args:
        public_name: the model name callers use, e.g. clinic
        policy: what the champion must hold, and for how long it is watched
    """
    with open_switchboard() as board, board.registry.runs.noticed(f"watch of {public_name}", "watch"):
        watched = watch_champion(board, public_name, policy)
        show(_watch_in_words(watched, policy), "watch", watched.release, board.display)
    return watched


def watch_champion(
    board: Switchboard, public_name: str, policy: WatchPolicy, fetch: Callable[[str, str], Counts] = fetch_counts
) -> Watched:
    """What `watch` does, without Prefect.

    Raises:
        ServingFailed: the gateway cannot be asked.
        NoChampion: the champion breaks the policy, and nothing was in production before it.
    """
    champion = board.registry.champion(public_name)
    if champion is None:
        raise UnknownRelease(f"nothing is in production as {public_name!r}", do="tunegate releases lists what there is")
    url, began = _gateway(board), time.monotonic()
    before = fetch(url, champion.id)
    finding = Finding("too few requests", "nothing was counted yet")
    while (watched_s := time.monotonic() - began) < policy.for_s:
        time.sleep(min(policy.every_s, policy.for_s - watched_s))
        now_live = board.registry.champion(public_name)
        if now_live is None or now_live.id != champion.id:
            return _ended(champion, "superseded", "another release is in production", began)
        finding = judge(policy, fetch(url, champion.id).since(before))
        if finding.outcome == "breaks":
            back = go_back(board.settings, board.registry, public_name, "watch", finding.reason, silent)
            tell_prefect(board.registry)
            return _ended(champion, "rolled back", f"{finding.reason}; {back.id} is live again", began)
    return _ended(champion, "held" if finding.outcome == "holds" else "too few requests", finding.reason, began)


@flow(name="look-for-data", persist_result=False)
def look_for_data(recipe: Path) -> new_data.Change:
    """Tell when a recipe's data has changed and has settled, so that the deployment which waits for it trains.

    Args:
        recipe: recipe file on the worker's disk; its data is looked at, not read
    """
    settings = load_settings()
    with open_registry(settings) as registry, registry.runs.noticed(f"look-for-data of {recipe.name}", "look-for-data"):
        loaded = load_recipe(recipe)
        change, found = new_data.look(loaded, settings.home)
        if change == "changed":
            announce(DATA_CHANGED, f"tunegate.recipe.{loaded.name}", {"tunegate.recipe": loaded.name})
            new_data.remember_told(loaded, settings.home, found)
    Display(make_console()).say(f"  {loaded.name}: {change}")
    return change


@flow(name="take-up", persist_result=False)
def take_up() -> list[str]:
    """Begin again what died: promotions of approved releases, told of again, and scheduled trainings; returns releases and recipes."""
    with open_switchboard() as board, board.registry.runs.noticed("look for promotions left behind", "take-up"):
        found = left_behind(board.registry, board.registry.now())
        ahead = promotions_ahead() if found else ()
        told = [release.id for release in found if release.id not in ahead and announce_again(board.registry, release)]
        trainings = begin_trainings_again(board.registry) if server_of_the_user() else []
        board.display.say(f"  begun again: {', '.join([*told, *trainings]) or 'nothing'}")
    return [*told, *trainings]


@flow(name="collect", persist_result=False)
def collect(recipe: Path, most: Annotated[int, Field(ge=1, le=100_000)] = collecting.MOST) -> int:
    """Propose rows from what production has shown; a person accepts them. Returns how many wait for a look.

    Args:
        recipe: recipe file on the worker's disk; its data preparation and suites are used
        most: proposals made at most, the most telling first
    """
    settings = load_settings()
    with open_registry(settings) as registry, registry.runs.noticed(f"collection of {recipe.name}", "collect"):
        loaded = load_recipe(recipe)
        collected = _gather(loaded, settings, registry, silent, most)
    display = Display(make_console())
    show(collecting.in_words(loaded.name, collected), "collected", loaded.name, display)
    display.say(f"  {loaded.name}: {collected.waiting} proposals wait for a look")
    return collected.waiting


def _gateway(board: Switchboard) -> str:
    server = board.registry.server()
    if server is None:
        raise ServingFailed("no server runs", why="there is nothing to watch", do="tunegate serve")
    return f"http://{server.host}:{server.port}"


def _ended(champion: Release, end: WatchEnd, reason: str, began: float) -> Watched:
    return Watched(release=champion.id, end=end, reason=reason, seconds=round(time.monotonic() - began, 1))


def _watch_in_words(watched: Watched, policy: WatchPolicy) -> str:
    limits = f"errors at most {policy.max_error_ratio:.1%}" + (f", p95 at most {policy.max_p95_s:g} s" if policy.max_p95_s else "")
    return f"# {watched.release}: {watched.end}\n\n{watched.reason}, in {watched.seconds:.0f} s.\n\nPolicy: {limits}."
