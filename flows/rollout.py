"""A promotion by steps, seen from a terminal: started here, taken through its steps by the server, followed until it ends.

Whoever follows may leave (Ctrl-C) and come back; the rollout does not need them. Next: `serving/rollout_controller.py`, which decides.
"""

import time
from datetime import timedelta
from typing import Any

from rich.console import Console

from flows.display import Display, plain
from flows.errors import NoRoom, PromotionEnded, ServingFailed
from flows.serving_control import ensure_server, wait_for_slot
from serving.errors import NoChampion, RegistryError, SlotError
from serving.lifecycle import State
from serving.records import LEASE_S, Release, Rollout, RolloutStatus, SlotState
from serving.registry import Registry, utc_now
from serving.settings import Settings
from training.progress import Progress, Report

_POLL_S = 0.5
# A person who goes back at a bad moment waits for a cold slot no longer than for a warm engine to come up.
_BACK_LEASE_S = 900.0


def has_steps(registry: Registry, release: Release) -> bool:
    """Whether this promotion goes by steps: the recipe has some, and there is a champion to compare with."""
    return bool(release.serving.rollout.steps) and registry.champion(release.public_name) is not None


def start_and_follow(display: Display, registry: Registry, release: Release, evidence: str, actor: str) -> Release:
    """Give the release its first share and wait until it is live.

    Raises:
        PromotionEnded: it was rolled back or withdrawn; the reason is the last judgement's.
        ServingFailed: no server runs that would take it further.
    """
    registry.rollouts.start(release.id, evidence, actor, utc_now() + timedelta(seconds=LEASE_S))
    with display.stage(f"roll out {release.id}") as shown:
        return follow(registry, release.id, shown.report)


def follow(registry: Registry, release_id: str, report: Report) -> Release:
    """Wait until a canary is one no more; see `start_and_follow`."""
    while True:
        try:
            release, rollout, server = registry.release(release_id), registry.rollouts.newest(release_id), registry.server()
        except RegistryError:  # busy for longer than its own patience; the rollout does not depend on us
            time.sleep(_POLL_S)
            continue
        assert rollout is not None
        report(_progress(release, rollout))
        if release.state is State.LIVE:
            return release
        if release.state is not State.CANARY:
            raise PromotionEnded(
                f"{release_id} is {release.state}: {rollout.reason}",
                why=f"{rollout.champion_id} has all the traffic",
                do=f"tunegate rollout status {release.public_name}",
            )
        if server is None:
            raise ServingFailed(f"{release_id} is a canary, and no server runs that would take it further", do="tunegate serve")
        time.sleep(_POLL_S)


def go_back(settings: Settings, registry: Registry, public_name: str, actor: str, reason: str, report: Report) -> Release:
    """Undo the last change of production. The release that takes over is up before anything is changed; warm, it is at once.

    Raises:
        NoChampion: there is nothing to go back to.
        ServingFailed: its slot does not come up; production stays as it is.
    """
    target = _target(registry, public_name)
    if registry.server() is not None and not _is_ready(registry, target):
        ensure_server(settings, registry)
        registry.want_slot(target.id, utc_now() + timedelta(seconds=_BACK_LEASE_S))
        try:
            wait_for_slot(registry, settings, target, report)
        except NoRoom:
            pass  # it takes the place of the one that goes
        except (ServingFailed, SlotError) as error:
            raise ServingFailed(
                f"{public_name} stays where it is: {error}",
                why="going back would leave callers without an answer",
                do="--at-once goes back anyway",
            ) from error
    return registry.rollback(public_name, actor, reason)


def describe(registry: Registry, public_name: str | None) -> list[dict[str, Any]]:
    """The rollouts that go on, as plain values; of one name, its last one if none goes on."""
    going_on = [each for each in registry.snapshot().rollouts if public_name in (None, each.public_name)]
    if not going_on and public_name is not None:
        ended = (registry.rollouts.newest(release.id) for release in registry.releases(public_name))
        going_on = sorted((each for each in ended if each is not None), key=lambda each: each.id)[-1:]
    return [each.model_dump(mode="json", exclude={"baseline"}) for each in going_on]


def show(console: Console, rollouts: list[dict[str, Any]]) -> None:
    """`describe` for people."""
    if not rollouts:
        console.print("no rollout goes on", highlight=False)
    for each in rollouts:
        console.print(
            f"[bold]{each['public_name']}[/]: {each['release_id']} against {each['champion_id']}, by {plain(each['actor'])}",
            highlight=False,
        )
        console.print(f"  {each['status']:<12} {each['share'] * 100:g} % of the traffic, since {each['step_at']}", highlight=False)
        if each["outcome"]:
            console.print(f"  {each['outcome']:<12} {plain(each['reason'])}", highlight=False, soft_wrap=True)
        for verdict in each["verdicts"]:
            said = f"{verdict['outcome']:<12} at {verdict['share'] * 100:g} %: {plain(verdict['reason'])}"
            console.print(f"  {said}", highlight=False, soft_wrap=True)


def _progress(release: Release, rollout: Rollout) -> Progress:
    steps = len(release.serving.rollout.steps)
    done = steps if rollout.status is RolloutStatus.WATCHING else rollout.step
    paused = "paused, " if rollout.status is RolloutStatus.PAUSED else ""
    return Progress(
        done, steps, "steps", f"{paused}{rollout.share * 100:g} % of the traffic; {rollout.outcome or 'no look yet'}: {rollout.reason}"
    )


def _target(registry: Registry, public_name: str) -> Release:
    rollout = registry.rollouts.current(public_name)
    target = registry.release(rollout.champion_id) if rollout is not None else registry.rollback_target(public_name)
    if target is None:
        raise NoChampion(
            f"{public_name!r} cannot be rolled back: nothing was in production before", do="tunegate releases shows what there is"
        )
    return target


def _is_ready(registry: Registry, release: Release) -> bool:
    return any(slot.release_id == release.id and slot.state is SlotState.READY for slot in registry.slots())
