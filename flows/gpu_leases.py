"""Gives each training GPUs of its own: one lock file for each device of this machine, held while the stage runs.

The kernel frees a lock with the process that held it, however that ended, so nothing has to be swept. Whoever trains here asks, from a
queue or by hand; engines do not. Knows nothing of stages. Next: `stage_runner.py`, which asks.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from serving.machine import boot_id
from training.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
NODES = Path("/dev")
_LOOK_EVERY_S = 1.0


def devices_of_this_machine(nodes: Path = NODES) -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA names them; none where there is none."""
    if (told := os.environ.get(VISIBLE)) is not None:
        return tuple(name.strip() for name in told.split(",") if name.strip())
    return tuple(str(number) for number in range(len(_numbers(nodes))))


@contextmanager
def gpus(
    home: Path,
    number: int,
    devices: Sequence[str],
    waits: Callable[[], None] = lambda: None,
    pause: Callable[[float], None] = time.sleep,
    nodes: Path = NODES,
) -> Iterator[tuple[str, ...]]:
    """`number` devices that nobody else trains on, as soon as there are so many; `waits` is called at each look in vain.

    Raises:
        InputError: this machine has not so many.
    """
    if number > len(devices):
        raise InputError(
            f"this training wants {number} GPUs, and there are {len(devices)}: {', '.join(devices)}",
            why="each of its processes needs one of its own",
            do=f"set devices.processes in the recipe to {len(devices)}, or {VISIBLE} to all that it may use",
        )
    # One folder for each start of a machine: a home may be shared by several, whose GPUs have the same numbers.
    folder = home / "gpus" / boot_id()
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with ExitStack() as held:
            mine = list[str]()
            for device in devices:
                if len(mine) < number and _locked(held, folder / f"{quote(_here(device, nodes), safe='')}.lock"):
                    mine.append(device)
            if len(mine) == number:
                kept = held.pop_all()
                break
        waits()
        pause(_LOOK_EVERY_S)
    with kept:
        yield tuple(mine)


def _here(device: str, nodes: Path) -> str:
    """A device as the whole machine names it: a container counts its own from 0, whichever they are."""
    numbers = _numbers(nodes)
    return numbers[int(device)] if device.isdigit() and int(device) < len(numbers) else device


def _numbers(nodes: Path) -> tuple[str, ...]:
    """The numbers of the GPUs that can be opened; in a container they are those of the machine."""
    found = (path.name.removeprefix("nvidia") for path in nodes.glob("nvidia[0-9]*"))
    return tuple(sorted((name for name in found if name.isdigit()), key=int))


def _locked(held: ExitStack, path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    held.callback(os.close, descriptor)
    return True
