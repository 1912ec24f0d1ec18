"""vLLM's own API server on a CPU, started without importing vLLM four times.

vLLM starts the API server, the engine core and the worker as separate Python processes, and asks a fourth one about the
model class; on a CPU it forces `spawn`, so each pays for the same imports again. Here they are imported once and the
children are forked. Forking is safe because no parallel region has run in the parent: libgomp's threads do not exist yet.
Options and routes are vLLM's. Next: `engine.py`, which writes the command line.
"""

import os
from collections.abc import Callable

from vllm.entrypoints.launchers.api_server import entry
from vllm.model_executor.models import registry
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.worker import cpu_worker

_START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


def main() -> None:
    """Serve until told to stop; arguments are those of `vllm serve`."""
    if not hasattr(cpu_worker, "CPUWorker"):
        raise SystemExit("this vLLM has no CPUWorker: serving/vllm_entry.py is for the CPU build")
    _fork_instead_of_spawn()
    _inspect_models_in_this_process()
    entry.main()


def _fork_instead_of_spawn() -> None:
    configure = CpuPlatform.check_and_update_config

    def configure_and_fork(config: object) -> None:
        configure(config)
        os.environ[_START_METHOD] = "fork"

    CpuPlatform.check_and_update_config = staticmethod(configure_and_fork)


def _inspect_models_in_this_process() -> None:
    def call(function: Callable[[], object]) -> object:
        return function()

    registry._run_in_subprocess = call


if __name__ == "__main__":
    main()
