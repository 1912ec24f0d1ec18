"""Hands deployments to a Prefect server: the work pool, its queues with their limits, each deployment with its triggers.

Registering again replaces what was there by the same name. A run whose process is gone is ended by an automation made here: Prefect
alone would leave it `Running` for ever, and its place in the queue taken.
Next: `deploy_cli.py`.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType, WorkPool
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger, EventTrigger, Posture, ResourceSpecification
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType

from flows.deployments import Deployment, DeploymentFile, Schedule, Trigger
from flows.errors import PrefectUnreachable
from flows.job_variables import misfits
from flows.work_pools import Pool, PoolType, template_of, with_scratch, worker_of
from training.errors import InputError

HEARTBEAT_S = 30
_GONE, _NEVER_BEGUN = "tunegate: end runs whose process is gone", "tunegate: end runs that were handed out and never began"
_BEAT = "heartbeat"
_HANDED_OUT = ("Submitting", "InfrastructurePending", "Pending")
_WAITING = ("Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot")
# A server that a container started would end with it; and the home, which several of them share, is no place for what Prefect keeps.
_CONTAINED = {"TUNEGATE_START_SERVER": "false", "PREFECT_HOME": "/tmp/prefect"}  # noqa: S108 -- inside the container
_ENDED = ("Completed", "Failed", "Cancelled", "Crashed")


@dataclass(frozen=True)
class Silence:
    """Seconds without a sign of life after which a run is taken for gone: one that has begun, and one that a worker has taken and that
    has not. Prefect allows no less than ten.
    """

    begun_s: float = 3 * HEARTBEAT_S
    # An image or a machine may have to come first. A worker that was killed over it leaves its place in the queue taken for ever.
    handed_out_s: float = 1800.0


@dataclass(frozen=True)
class Limits:
    """How many runs each queue lets run at the same time."""

    training: int = 1
    promotion: int = 1
    watching: int = 16


@dataclass(frozen=True)
class Environments:
    """What runs are given besides what their deployment says: those in processes, and those in containers."""

    of_processes: Mapping[str, str] = field(default_factory=dict)
    of_containers: Mapping[str, str] = field(default_factory=dict)


def register(file: DeploymentFile, limits: Limits, environment: Environments, silence: Silence = Silence()) -> tuple[str, ...]:
    """Register everything; returns `flow/name` of each deployment.

    Raises:
        InputError: no Prefect server is named, or it has a pool of the same name that is not the one meant.
        PrefectUnreachable: it does not answer, or refuses something.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise InputError(
            "no Prefect server is named",
            why="schedules and triggers live in a server; the one that a single command brings along ends with it",
            do="prefect server start; then export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    try:
        return asyncio.run(_register(file, limits, environment, silence))
    except (PrefectException, httpx.HTTPError) as error:
        detail = str(error).splitlines()
        raise PrefectUnreachable(
            f"{url} did not take the deployments: {type(error).__name__}: {detail[0] if detail else ''}",
            why="what it had before holds",
            do="start the Prefect server, or correct PREFECT_API_URL",
        ) from error


async def _register(file: DeploymentFile, limits: Limits, environment: Environments, silence: Silence) -> tuple[str, ...]:
    pools = {each.work_pool.name: each.work_pool for each in file.deployments}
    async with get_client() as client:
        await client.hello()
        known = {name: found for name in sorted(pools) if (found := await _pool(client, name)) is not None}
        if faults := [fault for each in file.deployments for fault in _pool_faults(each, known.get(each.work_pool.name))]:
            raise InputError(
                "the server has pools that are not those of the file:\n" + "\n".join(f"  {fault}" for fault in dict.fromkeys(faults)),
                why="a worker takes only the runs of its own type, and drops each variable that the pool's template does not name",
                do="name another pool, or remove that one: prefect work-pool delete NAME; nothing was registered",
            )
        for name, pool in sorted(pools.items()):
            await _have_pool(client, pool, limits, known.get(name))
        await _end_after_silence(client, _GONE, silence.begun_s, (_BEAT,), (_BEAT, *_ENDED))
        await _end_after_silence(client, _NEVER_BEGUN, silence.handed_out_s, _HANDED_OUT, ("Running", _BEAT, *_ENDED, *_WAITING))
    for deployment in file.deployments:
        await _runner_deployment(deployment, environment).aapply()
    return tuple(f"{deployment.flow.name}/{deployment.name}" for deployment in file.deployments)


async def _pool(client: PrefectClient, name: str) -> WorkPool | None:
    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        return None


def _pool_faults(deployment: Deployment, known: WorkPool | None) -> Iterator[str]:
    """Why this deployment cannot go to a pool that is there, whose settings are somebody's."""
    pool = deployment.work_pool
    if known is None:
        return
    if known.type != pool.type:
        yield f"{pool.name}: it is of the type {known.type}, and the file says {pool.type}"
        return
    template = template_of(pool.type) if _is_untouched(known, pool.type) else known.base_job_template
    for loc, told in misfits(template, variables_of(deployment, Environments())):
        yield f"{pool.name}: {deployment.flow.name}/{deployment.name}: {'.'.join(map(str, loc))}: {told}"


def _is_untouched(known: WorkPool, kind: PoolType) -> bool:
    """Whether a pool is as its worker makes it that starts before anything is registered: nobody has set anything."""
    return known.base_job_template in ({}, worker_of(kind).get_default_base_job_template())


async def _have_pool(client: PrefectClient, pool: Pool, limits: Limits, known: WorkPool | None) -> None:
    template = template_of(pool.type)
    if known is not None and _is_untouched(known, pool.type):
        await client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=template))
    if known is None:
        with suppress(ObjectAlreadyExists):  # made by somebody else this moment
            await client.create_work_pool(WorkPoolCreate(name=pool.name, type=pool.type, base_job_template=template))
    for queue, limit in vars(limits).items():
        try:
            found = await client.read_work_queue_by_name(queue, work_pool_name=pool.name)
        except ObjectNotFound:
            await client.create_work_queue(queue, work_pool_name=pool.name, concurrency_limit=limit)
        else:
            await client.update_work_queue(found.id, concurrency_limit=limit)


async def _end_after_silence(client: PrefectClient, name: str, silence_s: float, after: Sequence[str], expect: Sequence[str]) -> None:
    """Have a run ended as crashed of which nothing of `expect` is heard in time once something of `after` was."""
    silent = EventTrigger(
        after={f"prefect.flow-run.{each}" for each in after},
        expect={f"prefect.flow-run.{each}" for each in expect},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=silence_s),
    )
    crash = ChangeFlowRunState(state=StateType.CRASHED, message=f"no sign of life for {silence_s:g} s: its process is gone")
    for known in await client.read_automations_by_name(name):
        await client.delete_automation(known.id)
    await client.create_automation(AutomationCore(name=name, trigger=silent, actions=[crash]))


def _runner_deployment(deployment: Deployment, environment: Environments) -> RunnerDeployment:
    made = RunnerDeployment.from_flow(
        deployment.flow,
        name=deployment.name,
        description=deployment.description or None,
        tags=list(deployment.tags),
        parameters=deployment.parameters,
        triggers=[_trigger(each, f"{deployment.flow.name}/{deployment.name}: {', '.join(each.expect)}") for each in deployment.triggers],
        work_pool_name=deployment.work_pool.name,
        work_queue_name=deployment.work_pool.work_queue_name,
        job_variables=variables_of(deployment, environment),
        # The worker imports the module: no folder of this machine is recorded.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made.schedules = [_schedule(each) for each in deployment.schedules]
    return made


def variables_of(deployment: Deployment, environment: Environments) -> dict[str, Any]:
    """A deployment's own job variables, and what each run of its pool needs."""
    pool = deployment.work_pool
    ours = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}
    ours |= {**_CONTAINED, **environment.of_containers} if pool.contained else environment.of_processes
    variables = with_scratch(pool.job_variables) if pool.type == "kubernetes" else pool.job_variables
    return {**variables, "env": {**ours, **pool.env}}


def _schedule(schedule: Schedule) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate.model_validate({"schedule": schedule.as_prefect().model_dump(mode="json"), "active": schedule.active})


def _trigger(trigger: Trigger, name: str) -> DeploymentEventTrigger:
    given: dict[str, Any] = {"parameters": trigger.parameters} if trigger.parameters else {}
    return DeploymentEventTrigger(
        name=name,
        enabled=trigger.enabled,
        expect=set(trigger.expect),
        match=ResourceSpecification(dict(trigger.match)),
        for_each=set(trigger.for_each),
        within=timedelta(seconds=trigger.within),
        threshold=1,
        **given,
    )
