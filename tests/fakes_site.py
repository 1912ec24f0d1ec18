"""`serve` as a real process over a home folder, with fake engines, and callers that ask it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import psutil
from pydantic import SecretStr

from serving.keys import Scope
from serving.records import Release, SlotState
from serving.registry import Registry
from serving.slots import free_port
from tests.fakes_serving import EVIDENCE, approved, champion, write_model

ROOT = Path(__file__).parents[1]

SERVE = """
import sys
from serving.gateway_only import serve_callers
from serving.server import serve
from serving.settings import load_settings
from tests.fakes_serving import fake_engine
from training.errors import TunegateError
try:
    if sys.argv[1:] == ["--gateway-only"]:
        serve_callers(load_settings())
    else:
        serve(load_settings(), fake_engine(*sys.argv[1:]))
except TunegateError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


class Site:
    """A home folder with a registry, and servers started over it."""

    script = SERVE

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder, self.home, self.port = folder, folder / "home", free_port()
        self.started = list[subprocess.Popen[str]]()
        self.url = url or f"sqlite:///{self.home / 'registry.db'}"
        self.registry = Registry(self.url)
        self.champion = champion(self.registry, digest=write_model(folder / "a", "first"), folder=folder / "a")
        _, self.secret = self.registry.create_key("test", [Scope.INFER])

    def start(self, *flags: str, port: int | None = None, **settings: object) -> subprocess.Popen[str]:
        own = {
            "HOME": self.home,
            "REGISTRY_URL": self.url,
            "PORT": port or self.port,
            "DRAIN_S": 5,
            "RECONCILE_S": 0.1,
            "RESTART_FIRST_S": 0.1,
            **settings,
        }
        env = {**os.environ, "PYTHONPATH": str(ROOT), **{f"TUNEGATE_{name}": str(value) for name, value in own.items()}}
        server = subprocess.Popen([sys.executable, "-c", self.script, *flags], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
        self.started.append(server)
        return server

    @contextmanager
    def serving(self, *flags: str, **settings: object) -> Iterator[subprocess.Popen[str]]:
        server = self.start(*flags, **settings)
        try:
            until(lambda: (live := self.registry.server()) is not None and live.pid == server.pid)
            self.wait_ready(self.champion)
            yield server
        finally:
            server.kill()
            server.wait()

    def is_ready(self, release: Release) -> bool:
        return any(slot.release_id == release.id and slot.state is SlotState.READY for slot in self.registry.slots())

    def wait_ready(self, release: Release) -> None:
        until(lambda: self.is_ready(release))
        # The routing table follows within its poll.
        time.sleep(0.3)

    def engines(self) -> list[psutil.Process]:
        leashes = [psutil.Process(slot.pid) for slot in self.registry.slots()]
        return [process for leash in leashes for process in (leash, *leash.children(recursive=True))]

    def workers(self, server: subprocess.Popen[str]) -> list[psutil.Process]:
        """The gateway workers of a server that has several."""
        children = psutil.Process(server.pid).children()
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE and "serving.gateway_worker" in child.cmdline()]

    def promote_another(self) -> Release:
        release = approved(self.registry, digest=write_model(self.folder / "b", "second"), folder=self.folder / "b")
        self.registry.want_slot(release.id, datetime.now(UTC) + timedelta(seconds=60))
        self.wait_ready(release)
        return self.registry.promote(release.id, EVIDENCE, "bob")


def until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    limit = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)


async def ask(port: int, secret: SecretStr, *, words: int = 1, stream: bool = False) -> tuple[int, str, str]:
    """HTTP status, the release that answered, the body."""
    question = {"model": "clinic", "messages": [{"role": "user", "content": "hi"}], "max_tokens": words, "stream": stream}
    headers = {"Authorization": f"Bearer {secret.get_secret_value()}"}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=question, headers=headers) as answer:
        return answer.status, answer.headers.get("x-tunegate-release", ""), await answer.text()
