"""What `system_kills.py` can kill: how each kind of process is found, and what dies with it. Next: `whole_system.py`."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.benchmarks.system_line import System
from tests.benchmarks.whole_system import kill

GONE_WITHIN_S = 20.0
Find = Callable[[System, random.Random], list[psutil.Process]]


@dataclass(frozen=True)
class Target:
    """A kind of process. `find` gives nothing where none runs now; `restart` does what nobody else would. Where `leads` is set, what the
    killed process had started has to go without being killed.
    """

    name: str
    find: Find
    restart: Callable[[System], None] = lambda system: None
    leads: bool = False

    def kill(self, system: System, victims: Sequence[psutil.Process]) -> list[psutil.Process]:
        """SIGKILL, and what a service manager does about it. Returns what should be gone and is not."""
        below = [child for victim in victims for child in victim.children(recursive=True)] if self.leads else []
        kill(victims)
        _, left = psutil.wait_procs(below, timeout=GONE_WITHIN_S)
        self.restart(system)
        return [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _saying(processes: Sequence[psutil.Process], words: str) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if words in " ".join(process.cmdline()):
                found.append(process)
    return found


def _one(found: list[psutil.Process], chance: random.Random) -> list[psutil.Process]:
    return [chance.choice(sorted(found, key=lambda process: process.pid))] if found else []


def _postgres(system: System) -> list[psutil.Process]:
    with suppress(OSError, psutil.NoSuchProcess):
        first = psutil.Process(int((system.cluster.folder / "data/postmaster.pid").read_text(encoding="utf-8").split()[0]))
        return [first, *first.children()]
    return []


def _stage(system: System) -> list[psutil.Process]:
    """The host of the stages and its forks; before there is one, the flow's own process."""
    below = system.worker.processes()[1:]
    return _saying(below, "flows.stage_host") or _saying(below, "prefect")


def _engine(system: System) -> list[psutil.Process]:
    """Every process on a leash, and the leashes."""
    leashes = _saying(system.serve.processes(), "leash.py")
    below = [child for leash in leashes if leash.is_running() for child in leash.children(recursive=True)]
    return [*leashes, *below]


def _everything(system: System) -> list[psutil.Process]:
    units = [*system.server.processes(), *system.worker.processes(), *system.serve.processes()]
    return [*units, *_postgres(system)]


TARGETS = (
    Target("Prefect's server", lambda system, chance: system.server.processes()),
    Target("Prefect's worker", lambda system, chance: system.worker.processes()),
    Target("a stage's process", lambda system, chance: _one(_stage(system), chance)),
    Target("PostgreSQL", lambda system, chance: _postgres(system), lambda system: system.cluster.start()),
    Target("a backend of PostgreSQL", lambda system, chance: _one(_saying(_postgres(system), "postgres: tunegate"), chance)),
    # Only the first process: workers and engines have to go by themselves.
    Target("tunegate serve", lambda system, chance: system.serve.processes()[:1], leads=True),
    Target("a process of vLLM", lambda system, chance: _one(_engine(system), chance)),
    Target("a gateway worker", lambda system, chance: _one(_saying(system.serve.processes(), "gateway_worker"), chance)),
    Target("everything at once", lambda system, chance: _everything(system), lambda system: system.cluster.start()),
)
