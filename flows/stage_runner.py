"""Orders heavy stages and listens to them; whatever ends this process or the order, nothing of a stage is left running.

A stage runs in a fork of `stage_host.py`, under the same leash that holds the engines (`serving/leash.py`). The host starts with
the first stage that has something to do, and ends with the line. Next: `stages.py`, which decides what has to run.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from flows.errors import OutOfReach, StageFailed, StageKilled
from flows.gpu_leases import VISIBLE, devices_of_this_machine, gpus
from flows.stage_process import SPREAD, WITHOUT_GPU, StageRequest
from serving import leash
from training.environment import stage_environment
from training.errors import InputError, TunegateError
from training.progress import Progress, Report

HOST = (sys.executable, "-m", "flows.stage_host")
HOST_LOG = "stage_host.log"
_FRESH = (sys.executable, "-m", "flows.stage_process")
_NVIDIA = Path("/dev/nvidiactl")
_TAIL_LINES = 12
_KILLED = 128 + signal.SIGKILL


_warm: list["subprocess.Popen[bytes]"] = []


def warm_up(home: Path) -> None:
    """Start the first runner's host now, so that its imports pass while this process does something else."""
    if not _NVIDIA.exists() and not _warm:
        home.mkdir(parents=True, exist_ok=True)
        _warm.append(_start_host((), home / HOST_LOG))


ERRORS: dict[str, type[TunegateError]] = {"input": InputError, "outside": OutOfReach, "stage": StageFailed}


class StageRunner:
    """Runs one stage after another.

    Args:
        program: run this for every stage, the path of the request put behind it, instead of a fork that has imported everything;
            None takes the fork where that is safe, which is where there is no GPU.
        devices: the GPUs of this machine; None looks.
    """

    def __init__(self, program: Sequence[str] | None = None, devices: Sequence[str] | None = None) -> None:
        self._devices = devices_of_this_machine() if devices is None else tuple(devices)
        self._program = program if program is not None else (_FRESH if _NVIDIA.exists() else ())
        self._host: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the host and everything it started."""
        if self._host is not None:
            for pipe in (self._host.stdin, self._host.stdout):
                assert pipe is not None
                pipe.close()
            self._host.wait()  # the leash ends its whole group when its input does
            self._host = None

    def keep_warm(self) -> None:
        """Leave the host to the next runner of this process."""
        if self._host is not None and not self._program:
            _warm.append(self._host)
            self._host = None

    def run(self, request: StageRequest, report: Report) -> None:
        """Run a stage; returns when it has ended well.

        Raises:
            TunegateError: the stage met an error that a person can mend.
            StageFailed: the stage died, or ended with an error of its own; its log is named.
        """
        request.out.mkdir(parents=True, exist_ok=True)
        path, log = request.out.parent / f"{request.out.name}.request.json", request.out.parent / f"{request.out.name}.log"
        path.write_text(request.model_dump_json(indent=1), encoding="utf-8")
        try:
            with self._gpus_for(request, report) as env:
                status, error = self._order(request.home, {"request": str(path), "log": str(log), "env": env}, report)
        except BaseException:
            self.close()
            raise
        if error is not None:
            raise error
        if status != 0:
            raise (StageKilled if status == _KILLED else StageFailed)(
                f"the {request.stage} stage ended with status {status}:\n{_tail(log)}",
                why="its record was not written, so nothing builds on it",
                do=f"read {log}; the next run goes on from the last checkpoint",
            )

    @contextmanager
    def _gpus_for(self, request: StageRequest, report: Report) -> Iterator[dict[str, str]]:
        """What the stage is to find in its environment: GPUs of its own, where there are any and it uses some."""
        if not self._devices or request.stage in WITHOUT_GPU:
            yield {}
            return
        number = request.recipe.devices.processes if request.stage in SPREAD else 1
        waits = partial(report, Progress(0, 0, "s", "waiting for a GPU: others train on all of them"))
        with gpus(request.home, number, self._devices, waits) as mine:
            yield {VISIBLE: ",".join(mine)}

    def _order(self, home: Path, order: Mapping[str, object], report: Report) -> tuple[int, TunegateError | None]:
        host = self._started(home / HOST_LOG)
        assert host.stdin is not None
        host.stdin.write(json.dumps(order).encode() + b"\n")
        host.stdin.flush()
        return _listen(host, report)

    def _started(self, log: Path) -> subprocess.Popen[bytes]:
        if self._host is None:
            self._host = _warm.pop() if _warm and not self._program else _start_host(self._program, log)
        return self._host


def _start_host(program: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-I", "-S", leash.__file__, *HOST, *program]
    with log.open("ab") as errors:
        # The open pipe is the leash: when this process dies, the host's whole group is killed.
        return subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, env=_environment()
        )


def _listen(host: "subprocess.Popen[bytes]", report: Report) -> tuple[int, TunegateError | None]:
    """What the stage ended with: its status, and the error it named."""
    assert host.stdout is not None
    error: TunegateError | None = None
    for line in host.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # a library that prints
        if not isinstance(said, dict):
            continue
        if "progress" in said:
            report(Progress(**said["progress"]))
        elif "error" in said:
            error = ERRORS[said["error"].pop("kind")](**said["error"])
        elif "ended" in said:
            return int(said["ended"]), error
    raise StageKilled("the process that runs the stages has died", do="run the recipe again: it goes on where it stopped")


def _environment() -> dict[str, str]:
    # The folder above `flows` is where the packages are found when the project runs from its own checkout.
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **stage_environment(len(os.sched_getaffinity(0)))}


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines)
