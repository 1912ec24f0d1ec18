"""A whole installation on one machine, for benchmarks: PostgreSQL, Prefect's server, a worker and `tunegate serve`, each kept up as a
service manager keeps it, and callers who ask without pause. Next: `scheduled_run.py`, `system_kills.py`.
"""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from pydantic import SecretStr

from serving.keys import Scope
from serving.registry import Registry
from serving.settings import Settings
from serving.slots import free_port
from tests.fakes_flows import ROOT

QUESTIONS = ("How do I store insulin?", "My one-year-old has a fever of 39 °C.", "Is it safe to take ibuprofen with alcohol?")
RETRY_LATER = (429, 502, 503, 504)
_LOOK_S = 0.2


class Place:
    """A home of its own on free ports."""

    def __init__(self, home: Path, prefect_url: str, registry_url: str = "", **more: str) -> None:
        home.mkdir(parents=True)
        self.settings = Settings(home=home, port=free_port(), registry_url=SecretStr(registry_url))
        self.registry = Registry(self.settings.database_url)
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.environment = {"TUNEGATE_HOME": str(home), "TUNEGATE_PORT": str(self.settings.port), "PREFECT_API_URL": prefect_url, **more}
        if registry_url:
            self.environment["TUNEGATE_REGISTRY_URL"] = registry_url
        _, self.key = self.registry.create_key("callers", [Scope.INFER])

    def service(self, environment: Mapping[str, str]) -> "Service":
        """`tunegate serve`, with `environment` besides its own."""
        command = [sys.executable, "-m", "flows.cli", "serve"]
        return Service("serve", command, {**environment, **self.environment}, ROOT, self.settings.home / "serve.log")


class Service:
    """A program that is started again a while after it has died, as `Restart=on-failure` has it; what it had started dies with it."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], cwd: Path, log: Path, restart_s: float = 5.0):
        self.name, self._command, self._environment, self._cwd = name, command, environment, cwd
        self._log, self._restart_s, self._over = log, restart_s, threading.Event()

    @property
    def pid(self) -> int:
        """Of its first process, dead or alive."""
        return self._process.pid

    def processes(self) -> list[psutil.Process]:
        """Itself and all that descend from it; nothing once it is dead."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        return []

    @contextmanager
    def running(self) -> Iterator["Service"]:
        """Keep it up while the block runs; then SIGTERM."""
        self._start()
        minder = threading.Thread(target=self._mind, daemon=True)
        minder.start()
        try:
            yield self
        finally:
            self._over.set()
            minder.join()
            rest = self.processes()
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(60)
            kill(rest)

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._cwd, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _mind(self) -> None:
        while not self._over.wait(_LOOK_S):
            if self._process.poll() is not None and not self._over.wait(self._restart_s):
                self._start()


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL for all of them, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


@dataclass
class Callers:
    """Ask without pause until the block ends; `seen` counts (what came, release). Every second asks for a stream where `streams`."""

    place: Place
    callers: int = 3
    max_tokens: int = 40
    streams: bool = False
    pause_s: float = 0.0
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    enough: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Callers":
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(self.callers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {self.place.key.get_secret_value()}"}
        with httpx.Client(base_url=self.place.url, headers=headers, timeout=120) as client:
            while not self.enough.wait(self.pause_s):
                said = [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]
                body = {"model": "clinic", "messages": said, "max_tokens": self.max_tokens, "stream": self.streams and number % 2 == 1}
                try:
                    answer = client.post("/v1/chat/completions", json=body)
                except httpx.TransportError as error:
                    self.seen[_cut(error), "-"] += 1
                    time.sleep(_LOOK_S)
                    continue
                self.seen[what_came(answer), answer.headers.get("x-tunegate-release", "-")] += 1


def _cut(error: httpx.TransportError) -> str:
    return "nobody there" if isinstance(error, httpx.ConnectError) else "connection cut"


def what_came(answer: httpx.Response) -> str:
    """`answer`, `told to retry`, or else the status: which nobody should see."""
    if answer.status_code == 200:
        if not answer.headers["content-type"].startswith("text/event-stream"):
            return "answer" if _has(answer, "choices") else "200 without an answer"
        if answer.text.rstrip().endswith("data: [DONE]"):
            return "answer"
        return "told to retry" if '"error"' in answer.text.rstrip().rpartition("data: ")[2] else "200 whose stream has no end"
    return "told to retry" if answer.status_code in RETRY_LATER and _has(answer, "error") else str(answer.status_code)


def _has(answer: httpx.Response, key: str) -> bool:
    try:
        return bool(answer.json()[key])
    except (ValueError, KeyError):
        return False


def reached(call: Callable[[], bool]) -> bool:
    """What `call` says; no, while whom it asks cannot be reached."""
    try:
        return call()
    except (httpx.HTTPError, OSError):
        return False
