"""lm-eval in a process of its own, started early: its imports pass while a server starts, and its memory is given back.

    python -m evaluation.lm_eval_process

Reads JSON lines on its standard input, first {"section": …}, then {"endpoint": …, "concurrency": …} as often as wanted, and answers each
with one line, {"ready": true}, {"scores": […]} or {"error": {…}}. The key travels through the pipe and stands in no command line. When
the pipe ends, whatever the reason, the process ends. Next: `scoring.py`, which is handed `TaskHost.run`.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pydantic import SecretStr

from evaluation.client import Endpoint
from evaluation.config import ForgettingSection
from evaluation.errors import EndpointError, ScoringError, SuiteError
from evaluation.lm_eval_run import prepare_tasks, run_prepared
from evaluation.lm_eval_tasks import LocalTask, choose_tasks
from evaluation.records import TaskScore
from training.errors import TunegateError

_NICENESS = 10


class TaskHost:
    """Starts the process once per set of tasks and asks it for scores; a context manager that ends it. `process` is None while none runs.

    Args:
        log: where the process's own talk goes; None throws it away.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log, self._section = log, ForgettingSection()
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def warm_up(self, section: ForgettingSection) -> None:
        """Start the imports and the loading of items now, and do not wait for them."""
        if self.process is not None and self.process.poll() is None and self._section == section:
            return
        self.close()
        self._section, self.process = section, _start(section, self._log)
        self._tell({"section": section.model_dump(mode="json")})

    def run(self, endpoint: Endpoint, section: ForgettingSection, concurrency: int) -> tuple[TaskScore, ...]:
        """Scores of the section's tasks, which may be some of those that it was warmed up with.

        Raises:
            SuiteError, ScoringError, EndpointError: as `lm_eval_run` says.
            ScoringError: the process died.
        """
        if not set(section.tasks) <= set(self._section.tasks) or section != self._section.model_copy(update={"tasks": section.tasks}):
            self.close()
        if self.process is None:
            self.warm_up(section)
        where = {"base_url": endpoint.base_url, "model": endpoint.model, "api_key": endpoint.api_key.get_secret_value()}
        self._tell({"endpoint": where, "concurrency": concurrency, "tasks": section.tasks})
        said = self._hear()
        return tuple(TaskScore.model_validate(score) for score in said["scores"])

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()
            self.process.wait()
            self.process = None

    def _tell(self, value: dict[str, Any]) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(value) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said before it ended is still to be heard

    def _hear(self) -> dict[str, Any]:
        """The next scores, past what else it says."""
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if "error" in said:
                self.close()
                raise error_from_json(said["error"])
            if "scores" in said:
                return dict(said)
        status = self.process.wait()
        self.close()
        raise ScoringError(
            f"the process that runs lm-eval ended with status {status}", do=f"read {self._log}" if self._log else "run again"
        )


def main() -> int:
    """The process: answer until the input ends."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print what they like; it belongs into the log
    os.nice(_NICENESS)  # a server that starts beside it goes first
    asked = _orders()
    try:
        section = ForgettingSection.model_validate(json.loads(asked.get())["section"])
        _stay_offline_if_local(section)
        prepared = prepare_tasks(section)
        out.write(json.dumps({"ready": True}) + "\n")
        while True:
            order = json.loads(asked.get())
            endpoint = Endpoint(**order["endpoint"] | {"api_key": SecretStr(order["endpoint"]["api_key"])})
            wanted = [task for task in prepared if task.name in order["tasks"]]
            scores = run_prepared(endpoint, wanted, section, order["concurrency"])
            out.write(json.dumps({"scores": [score.model_dump(mode="json") for score in scores]}) + "\n")
    except TunegateError as error:
        out.write(json.dumps({"error": error_as_json(error)}) + "\n")
        return 1


def _orders() -> "queue.Queue[str]":
    """The lines of standard input; its end ends the process at once, in whatever it is."""
    found: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            found.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return found


def _stay_offline_if_local(section: ForgettingSection) -> None:
    if all(isinstance(task, LocalTask) for task in choose_tasks(section)):
        os.environ["HF_HUB_OFFLINE"] = "1"


def _start(section: ForgettingSection, log: Path | None) -> "subprocess.Popen[str]":
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    errors: IO[bytes] = (log or Path(os.devnull)).open("ab")
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with errors:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "evaluation.lm_eval_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )


def error_as_json(error: TunegateError) -> dict[str, Any]:
    """An error as it travels through the pipe."""
    kind = type(error).__name__
    if isinstance(error, SuiteError):
        return {"kind": kind, "problems": list(error.problems)}
    said: dict[str, Any] = {"kind": kind, "what": error.what, "why": error.why, "do": error.do}
    return said | ({"fault": error.fault} if isinstance(error, EndpointError) else {})


def error_from_json(said: dict[str, Any]) -> TunegateError:
    """The error that was sent."""
    kind = said.pop("kind")
    if kind == "SuiteError":
        return SuiteError(said["problems"])
    if kind == "EndpointError":
        return EndpointError(said["what"], fault=said["fault"], do=said["do"])
    return ScoringError(said["what"], why=said["why"], do=said["do"])


if __name__ == "__main__":
    sys.exit(main())
