"""Deployments for work pools of every type, and what Prefect's own workers make of them.

Nothing here can run a container: what Docker would be given is compared with what docker-py takes, and goes no further.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseJobConfiguration

from flows.deployments import Deployment
from flows.registering import Environments, variables_of
from flows.work_pools import template_of, worker_of
from tests.fakes_flows import ROOT, recipe_values, write_recipe

HOME = "/var/lib/tunegate"


def recipe_in(folder: Path) -> Path:
    """A recipe whose engine runs outside, on a volume."""
    values = recipe_values("pools")
    return write_recipe(folder, values | {"serving": values["serving"] | {"engine": "outside"}})


def in_docker(folder: Path, **changes: Any) -> dict[str, Any]:
    """A sound pool of containers, changed; `folder` is the server's home."""
    variables = {
        "image": "tunegate:gpu",
        "volumes": [f"{folder}:{folder}"],
        "env": {"TUNEGATE_HOME": str(folder)},
        "mem_limit": "64g",
        "device_requests": [{"driver": "nvidia", "count": 1, "capabilities": [["gpu"]]}],
    }
    return {"name": "containers", "type": "docker", "work_queue_name": "training", "job_variables": variables | changes}


def on_cluster(folder: Path, **changes: Any) -> dict[str, Any]:
    """A sound pool of Jobs, changed; `folder` is the server's home."""
    variables = {
        "image": "tunegate:gpu",
        "namespace": "tunegate",
        "gpus": 2,
        "memory_request": "64Gi",
        "node_selector": {"gpu": "true"},
        "service_account_name": "stage",
        "finished_job_ttl": 3600,
        "env": {"TUNEGATE_HOME": str(folder), "TUNEGATE_ARTEFACT_URL": "s3://models/tunegate"},
        "env_from": [{"secretRef": {"name": "stages"}}],
        "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": "home-tunegate-0"}}],
        "volume_mounts": [{"name": "home", "mountPath": str(folder)}],
    }
    return {"name": "trainings", "type": "kubernetes", "work_queue_name": "training", "job_variables": variables | changes}


def configured(deployment: Deployment) -> BaseJobConfiguration:
    """What the worker of the deployment's pool is about to start, made by the worker's own class."""
    worker = worker_of(deployment.work_pool.type)
    variables = variables_of(deployment, Environments(of_containers={"TUNEGATE_ARTEFACT_URL": "s3://models/tunegate"}))

    async def made() -> BaseJobConfiguration:
        async with get_client() as client:
            template = template_of(deployment.work_pool.type)
            found: BaseJobConfiguration = await worker.job_configuration.from_template_and_values(template, variables, client=client)
        found.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="grey-heron"))
        return found

    return asyncio.run(made())


def run_as_a_node_would(job: Any, secrets: Mapping[str, Mapping[str, str]], folder: Path) -> str:
    """A Job's command with the Job's environment, but as a process of this machine; what it wrote, once it has ended well."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    for source in container["envFrom"]:
        env |= secrets[source["secretRef"]["name"]]
    image = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])), "PYTHONPATH": str(ROOT)}
    scratch = {"HOME": str(folder), "PREFECT_HOME": str(folder / "scratch")}  # a pod's /tmp is its own
    command = [*container["command"], *container["args"]]
    done = subprocess.run(command, env={**image, **env, **scratch}, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
