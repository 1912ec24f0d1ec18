"""Hands deployments to a Prefect server: the work pool, its queues with their limits, each deployment with its triggers.

Registering again replaces what was there by the same name. A run whose process is gone is ended by an automation made here: Prefect
alone would leave it `Running` for ever, and its place in the queue taken.
Next: `deploy_cli.py`.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger, EventTrigger, Posture, ResourceSpecification
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from flows.deployments import Deployment, DeploymentFile, Schedule, Trigger
from flows.errors import PrefectUnreachable
from training.errors import InputError

HEARTBEAT_S = 30
SILENCE_S = 3 * HEARTBEAT_S
_GONE = "tunegate: end runs whose process is gone"
_ENDED = ("Completed", "Failed", "Cancelled", "Crashed")


@dataclass(frozen=True)
class Limits:
    """How many runs each queue lets run at the same time."""

    training: int = 1
    promotion: int = 1
    watching: int = 16


def register(file: DeploymentFile, limits: Limits, environment: Mapping[str, str], *, silence_s: float = SILENCE_S) -> tuple[str, ...]:
    """Register everything; returns `flow/name` of each deployment. `environment` is given to the processes of the runs.

    A run that gives no sign of life for `silence_s` seconds is taken for gone; Prefect allows no less than ten.

    Raises:
        InputError: no Prefect server is named.
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
        return asyncio.run(_register(file, limits, environment, silence_s))
    except (PrefectException, httpx.HTTPError) as error:
        detail = str(error).splitlines()
        raise PrefectUnreachable(
            f"{url} did not take the deployments: {type(error).__name__}: {detail[0] if detail else ''}",
            why="what it had before holds",
            do="start the Prefect server, or correct PREFECT_API_URL",
        ) from error


async def _register(file: DeploymentFile, limits: Limits, environment: Mapping[str, str], silence_s: float) -> tuple[str, ...]:
    async with get_client() as client:
        await client.hello()
        for pool in sorted({deployment.work_pool.name for deployment in file.deployments}):
            await _have_pool(client, pool, limits)
        await _have_gone_runs_ended(client, silence_s)
    for deployment in file.deployments:
        await _runner_deployment(deployment, environment).aapply()
    return tuple(f"{deployment.flow.name}/{deployment.name}" for deployment in file.deployments)


async def _have_pool(client: PrefectClient, name: str, limits: Limits) -> None:
    template = ProcessWorker.get_default_base_job_template()
    with suppress(ObjectAlreadyExists):  # somebody's settings of it are left alone
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    for queue, limit in vars(limits).items():
        try:
            found = await client.read_work_queue_by_name(queue, work_pool_name=name)
        except ObjectNotFound:
            await client.create_work_queue(queue, work_pool_name=name, concurrency_limit=limit)
        else:
            await client.update_work_queue(found.id, concurrency_limit=limit)


async def _have_gone_runs_ended(client: PrefectClient, silence_s: float) -> None:
    """Once a run has given a sign of life, it gives another, or ends."""
    beat, ends = "prefect.flow-run.heartbeat", {f"prefect.flow-run.{state}" for state in _ENDED}
    silent = EventTrigger(
        after={beat},
        expect={beat, *ends},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=silence_s),
    )
    crash = ChangeFlowRunState(state=StateType.CRASHED, message=f"no sign of life for {silence_s:g} s: its process is gone")
    for known in await client.read_automations_by_name(_GONE):
        await client.delete_automation(known.id)
    await client.create_automation(AutomationCore(name=_GONE, trigger=silent, actions=[crash]))


def _runner_deployment(deployment: Deployment, environment: Mapping[str, str]) -> RunnerDeployment:
    variables = deployment.work_pool.job_variables
    beats = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}
    together = {**variables, "env": {**beats, **environment, **variables.get("env", {})}}
    made = RunnerDeployment.from_flow(
        deployment.flow,
        name=deployment.name,
        description=deployment.description or None,
        tags=list(deployment.tags),
        parameters=deployment.parameters,
        triggers=[_trigger(each, f"{deployment.flow.name}/{deployment.name}: {', '.join(each.expect)}") for each in deployment.triggers],
        work_pool_name=deployment.work_pool.name,
        work_queue_name=deployment.work_pool.work_queue_name,
        job_variables=together,
        # The worker imports the module: no folder of this machine is recorded.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made.schedules = [_schedule(each) for each in deployment.schedules]
    return made


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
