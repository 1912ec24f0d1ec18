"""The embedded model, unpacked once for all workers of one run of the suite: it takes a core the better part of a minute."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose base models every worker uses; one worker at a time is in the block."""
    of_this_worker = tmp_path_factory.getbasetemp()
    home = (of_this_worker.parent if "PYTEST_XDIST_WORKER" in os.environ else of_this_worker) / "shared"
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield home


def share_base(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let the tests to come use the base model that a command has unpacked below `home`, if it came so far."""
    with shared_home(tmp_path_factory) as shared:
        if (home / "base").exists() and not (shared / "base").exists():
            shutil.copytree(home / "base", shared / "base", copy_function=os.link)
