"""What died on the way to production: approved releases that nobody promotes, and trainings whose process was killed. Both are begun
again without a person.

An event may be lost (a trigger that Prefect's SQLite did not take, a server that was down) and a process may be killed or told to end, as
when its machine is shut down; an approval is a record, so neither loses it. What people or a rollout have decided stays: a promotion that
failed was told of, one that was stopped (Ctrl-C) or cancelled was meant, and a canary that was withdrawn waits. A training that died goes
on where it stopped; one that dies again and again is left to people. Next: `operations.py`, whose `take_up` does this by the clock.
"""

from collections.abc import Sequence, Set
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from flows.errors import RecipeError
from flows.events import APPROVED, announce
from flows.recipe import load_recipe
from serving.errors import TransitionRefused
from serving.lifecycle import State
from serving.records import Release
from serving.registry import Registry
from serving.run_leases import promotion_of

# The event that an approval tells gets this long to start its promotion.
GRACE = timedelta(minutes=2)
_UNTOUCHED = (None, "run.crashed", "run.terminated")
# A machine that a training brings down is not brought down by it all night.
DEATHS_IN_A_ROW = 5
_AHEAD = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
_CANCELLED = [StateType.CANCELLING, StateType.CANCELLED]


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
    """Releases for which Prefect has a run of `promote` that waits or goes on, or that a person has cancelled: neither needs another."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter.model_validate({"name": {"any_": ["promote"]}}),
            flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": [*_AHEAD, *_CANCELLED]}}}),
        )
    return {str(run.parameters.get("release_id")) for run in runs}


def begin_trainings_again(registry: Registry) -> list[str]:
    """Begin the scheduled trainings again whose newest run has crashed; returns the recipes. Asked twice, it begins each once."""
    at_work = {run.recipe_name for run in registry.runs.under_way()}
    begun = []
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments(flow_filter=FlowFilter.model_validate({"name": {"any_": ["retrain"]}})):
            runs = client.read_flow_runs(
                flow_run_filter=FlowRunFilter.model_validate(
                    {"deployment_id": {"any_": [deployment.id]}, "expected_start_time": {"before_": registry.now()}}
                ),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=DEATHS_IN_A_ROW + 1,
            )
            if not has_died([run.state_type for run in runs]) or _is_at_work(runs[0], at_work):
                continue
            client.create_flow_run_from_deployment(
                deployment.id, parameters=runs[0].parameters, idempotency_key=f"tunegate: instead of {runs[0].id}"
            )
            begun.append(str(runs[0].parameters["recipe"]))
    return begun


def has_died(newest_first: Sequence[StateType | None]) -> bool:
    """Whether the newest of these runs crashed, and not so many before it that the next one would, too."""
    alive = next((number for number, state in enumerate(newest_first) if state is not StateType.CRASHED), len(newest_first))
    return 0 < alive <= DEATHS_IN_A_ROW


def _is_at_work(run: FlowRun, at_work: Set[str]) -> bool:
    """Prefect takes a run for dead that it could not hear, too; its lease knows better."""
    try:
        return load_recipe(Path(run.parameters["recipe"])).name in at_work
    except RecipeError:
        return False  # the run will say so


def _is_left_behind(registry: Registry, release: Release, now: datetime) -> bool:
    if registry.history(release.id)[-1].from_state is not State.AWAITING_APPROVAL:
        return False  # it was a canary and was withdrawn
    granted_at, heard = registry.approvals.standing(release.id).granted_at, registry.runs.last_heard(promotion_of(release.id))
    if granted_at is None or heard not in _UNTOUCHED or (heard is None and now - granted_at < GRACE):
        return False
    with suppress(TransitionRefused):
        registry.approvals.check_still_holds(release.id)
        return True
    return False
