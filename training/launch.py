"""Starts the processes of a spread stage on this machine, by torch's elastic launcher, and ends them all when one of them fails.

The launcher's and the processes' sockets are kept to the loopback device. Knows nothing of what the processes do.
Next: `ranks.py`, their side of it.
"""

import os
import socket
import sys
from collections.abc import Sequence
from uuid import uuid4

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from training.environment import stage_environment

_LOOPBACK = "lo"


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run this interpreter with `arguments` in so many processes; returns 0, or the status of the first that failed."""
    os.environ |= stage_environment(max(1, len(os.sched_getaffinity(0)) // processes))
    if _LOOPBACK in [name for _, name in socket.if_nameindex()]:
        os.environ |= {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,  # the next run goes on from the checkpoint; a restart here would hide why it died
    )
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        code = min(error.failures.values(), key=lambda failure: failure.timestamp).exitcode
        return code if code > 0 else 128 - code
    return 0
