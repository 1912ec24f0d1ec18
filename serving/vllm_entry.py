"""vLLM's own API server on a CPU, started without importing vLLM four times.

vLLM starts the API server, the engine core and the worker as separate Python processes, and asks a fourth one about the
model class; on a CPU it forces `spawn`, so each pays for the same imports again. Here they are imported once, the engine
core is forked, and the worker lives in it. Forking is safe because no parallel region has run in the parent: libgomp's threads
do not exist yet. Options and routes are vLLM's. Next: `engine.py`, which writes the command line.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Have imports of these fail, as if they were not installed; afterwards they can be had again."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how an import is told to fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


# Each is optional for the one who imports it (requests, torch's remote cache, losses of object detection, assisted generation, a menu
# of accelerate's) and of use to nobody who serves text; together they are a quarter of the time that the imports take, and 177 MB.
with _without("chardet", "redis", "scipy", "sklearn", "boto3"):
    from vllm.entrypoints.launchers.api_server import entry
    from vllm.model_executor.models import registry
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.worker import cpu_worker

_START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


def main() -> None:
    """Serve until told to stop; arguments are those of `vllm serve`."""
    if not hasattr(cpu_worker, "CPUWorker"):
        raise SystemExit("this vLLM has no CPUWorker: serving/vllm_entry.py is for the CPU build")
    _fork_once_instead_of_spawning_twice()
    _inspect_models_in_this_process()
    entry.main()


def _fork_once_instead_of_spawning_twice() -> None:
    configure = CpuPlatform.check_and_update_config

    def configure_and_fork(config: Any) -> None:
        configure(config)
        os.environ[_START_METHOD] = "fork"
        # A worker process of its own is asked by looping on shared memory, which takes a whole core from its threads. vLLM wants it
        # so that it can set OpenMP's environment; here that is set before anything starts.
        if config.parallel_config.world_size == 1:
            config.parallel_config.distributed_executor_backend = "uni"

    CpuPlatform.check_and_update_config = staticmethod(configure_and_fork)


def _inspect_models_in_this_process() -> None:
    def call(function: Callable[[], object]) -> object:
        return function()

    registry._run_in_subprocess = call


if __name__ == "__main__":
    main()
