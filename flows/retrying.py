"""Which failures of a task are worth another try: those of something that may answer in a minute, as a server that is started again, a
stage that was killed from outside, and no others.

A closed list: wrong input, a gate that does not pass, a stage that ends with an error of its own would only fail again, later. Somebody
at a terminal is told at once and tries again when they like. Next: `pipeline.py`.
"""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import deployment

from evaluation.errors import EndpointError
from flows.errors import OutOfReach, PrefectUnreachable, SlotEnded, StageKilled
from serving.errors import RegistryUnreachable, StoreUnreachable
from training.disk import disk_faults_told
from training.errors import HubUnreachable

P = ParamSpec("P")
R = TypeVar("R")

HEALS = (RegistryUnreachable, StoreUnreachable, HubUnreachable, PrefectUnreachable, OutOfReach, StageKilled, SlotEnded)
PAUSES_S: list[float] = [10, 60, 300]


def patient(work: Callable[P, R]) -> Task[P, R]:
    """`work` as a task that is tried again after growing pauses where that may help."""
    # The line keeps its own records of what is finished; a second opinion from Prefect's cache could only disagree.
    made = task(
        cache_policy=NO_CACHE,
        persist_result=False,
        log_prints=False,
        retries=len(PAUSES_S),
        retry_delay_seconds=PAUSES_S,
        retry_condition_fn=_is_worth_it,
    )
    return made(_told(work))


def _told(work: Callable[P, R]) -> Callable[P, R]:
    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with disk_faults_told(Path(os.environ.get("TUNEGATE_HOME", "."))):
            return work(*args, **kwargs)

    return run


def may_heal(error: BaseException) -> bool:
    """Whether the same again may work a little later."""
    return isinstance(error, HEALS) or (isinstance(error, EndpointError) and error.passing)


def _is_worth_it(tried: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    return deployment.id is not None and isinstance(state.data, BaseException) and may_heal(state.data)
