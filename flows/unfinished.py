"""Approved releases whose promotion was never begun, or whose process died: they are told of again, and promoted without a person.

An event may be lost (a trigger that Prefect's SQLite did not take, a server that was down) and a process may be killed; an approval is a
record, so neither loses it. What people or a rollout have decided stays: a promotion that failed was told of, one that was stopped was
meant, and a canary that was withdrawn waits. Next: `operations.py`, whose `take_up` does this by the clock.
"""

from collections.abc import Set
from contextlib import suppress
from datetime import datetime, timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import StateType

from flows.events import APPROVED, announce
from serving.errors import TransitionRefused
from serving.lifecycle import State
from serving.records import Release
from serving.registry import Registry
from serving.run_leases import promotion_of

# The event that an approval tells gets this long to start its promotion.
GRACE = timedelta(minutes=2)
_UNTOUCHED = (None, "run.crashed")
_AHEAD = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]


def left_behind(registry: Registry, now: datetime) -> tuple[Release, ...]:
    """Releases that are approved, whose approval still holds, and that nobody promotes."""
    registry.runs.bury_the_dead()
    approved = (release for release in registry.snapshot().releases if release.state is State.APPROVED)
    return tuple(release for release in approved if _is_left_behind(registry, release, now))


def announce_again(registry: Registry, release: Release) -> bool:
    """Tell Prefect of the approval as it was told the first time; returns whether there is anybody to tell."""
    labels = {"tunegate.release": release.id, "tunegate.public-name": release.public_name}
    return announce(APPROVED, f"tunegate.release.{release.id}", labels | {"tunegate.actor": registry.history(release.id)[-1].actor})


def promotions_ahead() -> Set[str]:
    """Releases for which Prefect has a run of `promote` that waits or goes on: a second one would find nothing to do."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter.model_validate({"name": {"any_": ["promote"]}}),
            flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": _AHEAD}}}),
        )
    return {str(run.parameters.get("release_id")) for run in runs}


def _is_left_behind(registry: Registry, release: Release, now: datetime) -> bool:
    if registry.history(release.id)[-1].from_state is not State.AWAITING_APPROVAL:
        return False  # it was a canary and was withdrawn
    granted_at = registry.approvals.standing(release.id).granted_at
    if granted_at is None or now - granted_at < GRACE:
        return False
    with suppress(TransitionRefused):
        registry.approvals.check_still_holds(release.id)
        return registry.runs.last_heard(promotion_of(release.id)) in _UNTOUCHED
    return False
