"""How training on several machines is started: torchrun reads what the files of deploy/ give it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed import run as distributed_run
from torch.distributed.launcher.api import LaunchConfig

from tests.repository.checkout import ROOT

DEPLOY = ROOT / "deploy"


def of_kind(kind: str) -> list[dict[str, Any]]:
    text = (DEPLOY / "kubernetes" / "training" / "training.yaml").read_text(encoding="utf-8")
    return [each for each in yaml.safe_load_all(text) if each["kind"] == kind]


def spread_by_torchrun(arguments: list[str]) -> LaunchConfig:
    """What torchrun makes of its arguments; the program that all processes run is the one that leads and follows."""
    read = distributed_run.get_args_parser().parse_args(arguments)
    config, program, program_arguments = distributed_run.config_from_args(read)
    assert program == sys.executable
    assert program_arguments[-3:-1] == ["-m", "flows.train_ranks"]
    return config


def test_torchrun_reads_the_jobs_arguments_and_its_pods_find_the_first_by_name() -> None:
    (job,), (service,), (policy,) = (of_kind(kind) for kind in ("Job", "Service", "NetworkPolicy"))
    pod = job["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    config = spread_by_torchrun([each.replace("$(JOB_COMPLETION_INDEX)", "1") for each in container["args"]])

    assert config.min_nodes == config.max_nodes == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert config.nproc_per_node == int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert config.rdzv_endpoint == f"{job['metadata']['name']}-0.{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert (pod["spec"]["subdomain"], service["spec"]["clusterIP"]) == (service["metadata"]["name"], "None")
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("node", [0, 1])
def test_the_script_for_two_hosts_starts_torchrun_with_arguments_it_reads(node: int, tmp_path: Path) -> None:
    """The script runs in a copy of the tree's shape, where torchrun is a program that writes down how it was called."""
    script = tmp_path / "deploy" / "multinode" / "two_hosts.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(DEPLOY / "multinode" / "two_hosts.sh", script)
    torchrun = tmp_path / ".venv" / "bin" / "torchrun"
    torchrun.parent.mkdir(parents=True)
    torchrun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    torchrun.chmod(0o755)
    environment = {"HEAD": "gpu-a.example", "TUNEGATE_HOME": "/srv/shared", "PATH": os.environ["PATH"]}

    called = subprocess.run([str(script), str(node), "medical.yaml"], env=environment, capture_output=True, text=True, check=True)
    config = spread_by_torchrun(called.stdout.splitlines())
    unnamed = subprocess.run([str(script), "0", "medical.yaml"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)

    assert (config.min_nodes, config.nproc_per_node, config.rdzv_endpoint) == (2, 8, "gpu-a.example:29500")
    assert config.rdzv_configs["rank"] == node
    assert "the name of the first machine" in unnamed.stderr
