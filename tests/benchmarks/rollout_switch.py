"""Callers while production changes: a promotion, a rollback, and a promotion by steps, under an open-loop load with live streams.

    python -m tests.benchmarks.rollout_switch [RATE [STREAMS_PER_S]] [--workers N] [--steady SECONDS]

The real server (supervisor, registry, controller, gateway or N gateway workers) over stub engines; with workers, a flip is over when
all of them have made it, and each must have answered. A request is sent at its time whether or not earlier
ones were answered, so a stall cannot hide itself. A flip takes as long as the latest request that was sent after the registry's
commit and still answered by the release before; a flip's p99 is over the plain requests sent within a second of it.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr

from serving.keys import Scope
from serving.lifecycle import State
from serving.records import LEASE_S, Release, SlotState
from serving.registry import Registry, utc_now
from serving.rollout_section import RolloutSection, RolloutStep
from serving.slots import free_port
from tests.fakes_serving import EVIDENCE, approved, champion, write_model

ROOT = Path(__file__).parents[2]
WORDS, TOKEN_S, NEAR_S = 20, 0.2, 1.0
STRAIGHT = RolloutSection()
BY_STEPS = RolloutSection(
    steps=(RolloutStep(percent=5, min_requests=60, min_s=1), RolloutStep(percent=25, min_requests=60, min_s=1)),
    interval_s=0.5,
    max_step_s=120,
    watch_s=0,
    # Sixty requests cannot tell a difference of 1 %; what is measured here is the switching.
    max_error_increase=0.1,
    max_latency_ratio=3,
    max_first_token_ratio=3,
)
SERVE = """
import sys
from serving.server import serve
from serving.settings import load_settings
from tests.fakes_serving import fake_engine
serve(load_settings(), fake_engine("--token-s", sys.argv[1]))
"""


@dataclass(frozen=True)
class Answer:
    """One request as its caller saw it. Times are `time.time()`; `fault` is empty when all was well."""

    stream: bool
    sent: float
    done: float
    release: str
    fault: str
    worker: str


@dataclass(frozen=True)
class Flip:
    """A change of the champion: what it was, when the registry had it, and who answered before."""

    name: str
    at: float
    before: str


@dataclass
class Figures:
    """What was measured."""

    answers: list[Answer] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [answer.fault for answer in self.answers if answer.fault]

    def live_streams(self) -> int:
        """Streams that were under way during a flip."""
        return sum(1 for answer in self.answers if answer.stream and any(answer.sent < flip.at < answer.done for flip in self.flips))

    def flip_s(self, flip: Flip) -> float:
        """Seconds after the commit in which requests were still sent that the release before answered, up to the next flip."""
        end = min((other.at for other in self.flips if other.at > flip.at), default=float("inf"))
        late = [answer.sent - flip.at for answer in self.answers if flip.at < answer.sent < end and answer.release == flip.before]
        return max(late, default=0.0)

    def p99_s(self, near: bool) -> float:
        """p99 of plain requests, near a flip or away from all."""
        found = [
            answer.done - answer.sent
            for answer in self.answers
            if not answer.stream and any(abs(answer.sent - flip.at) < NEAR_S for flip in self.flips) == near
        ]
        return statistics.quantiles(found, n=100)[98]


class Site:
    """A home, a running server, and three releases with stub engines."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.port = folder, folder / "home", free_port()
        self.registry = Registry(f"sqlite:///{self.home / 'registry.db'}")
        _, self.key = self.registry.create_key("load", [Scope.INFER])
        self.first = champion(self.registry, digest=self._model("a"), folder=folder / "a")
        self.second = approved(self.registry, digest=self._model("b"), folder=folder / "b", rollout=STRAIGHT)
        self.third = approved(self.registry, digest=self._model("c"), folder=folder / "c", rollout=BY_STEPS)

    def _model(self, name: str) -> str:
        return write_model(self.folder / name, name)

    @contextmanager
    def serving(self, workers: int = 1) -> Iterator[None]:
        own = {"HOME": self.home, "PORT": self.port, "DRAIN_S": 20, "RECONCILE_S": 0.2, "MAX_IN_FLIGHT": 5000, "GATEWAY_WORKERS": workers}
        env = {**os.environ, "PYTHONPATH": str(ROOT), **{f"TUNEGATE_{name}": str(value) for name, value in own.items()}}
        server = subprocess.Popen([sys.executable, "-c", SERVE, str(TOKEN_S)], cwd=ROOT, env=env)
        try:
            for release in (self.second, self.third):
                self.registry.want_slot(release.id, utc_now() + timedelta(seconds=600))
            until(lambda: all(self.is_ready(release) for release in (self.first, self.second, self.third)) and self._takes_callers(workers))
            yield
        finally:
            server.terminate()
            server.wait(60)
            self.registry.close()

    def _takes_callers(self, workers: int) -> bool:
        """Whether so many processes do; many connections at once are more than one of them takes alone."""
        lines = [HTTPConnection("127.0.0.1", self.port, timeout=30) for _ in range(32)]
        try:
            for line in lines:
                line.request("GET", "/health")
            return len({_process_of(line.getresponse().headers) for line in lines}) == workers
        except OSError:
            return False

    def is_ready(self, release: Release) -> bool:
        slots = self.registry.slots() if self.registry.server() else ()
        return any(slot.release_id == release.id and slot.state is SlotState.READY for slot in slots)


class Load:
    """Sends plain requests and streams at fixed rates until it is told to stop."""

    def __init__(self, port: int, key: SecretStr, figures: Figures) -> None:
        self._url, self._figures = f"http://127.0.0.1:{port}/v1/chat/completions", figures
        self._headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
        self._stop = asyncio.Event()

    async def run(self, plain_per_s: float, streams_per_s: float) -> None:
        """Until `stop`; then every request that was sent is waited for."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers) as session, asyncio.TaskGroup() as asked:
            await asyncio.gather(
                self._send(asked, plain_per_s, lambda: self._plain(session)),
                self._send(asked, streams_per_s, lambda: self._stream(session)),
            )

    def stop(self) -> None:
        """No new requests."""
        self._stop.set()

    async def _send(self, asked: asyncio.TaskGroup, per_s: float, one: Callable[[], Any]) -> None:
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            asked.create_task(one())
            sent += 1
            await asyncio.sleep(max(0.0, began + sent / per_s - time.monotonic()))

    async def _plain(self, session: aiohttp.ClientSession) -> None:
        await self._ask(session, stream=False, words=1)

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        await self._ask(session, stream=True, words=WORDS)

    async def _ask(self, session: aiohttp.ClientSession, *, stream: bool, words: int) -> None:
        body = {"model": "clinic", "messages": [{"role": "user", "content": "hello"}], "stream": stream, "max_tokens": words}
        sent, release, worker = time.time(), "none", "none"
        try:
            async with session.post(self._url, json=body) as response:
                release = response.headers.get("x-tunegate-release", "none")
                worker = _process_of(response.headers)
                fault = _fault(response.status, await response.read(), stream, words)
        except (aiohttp.ClientError, TimeoutError) as error:
            fault = repr(error)
        self._figures.answers.append(Answer(stream, sent, time.time(), release, fault, worker))


def _process_of(headers: Mapping[str, str] | Message) -> str:
    """Which gateway process has answered."""
    return headers.get("x-request-id", "req-none").split("-")[1]


def _fault(status: int, body: bytes, stream: bool, words: int) -> str:
    if status != 200:
        return f"status {status}: {body[:80]!r}"
    if not stream:
        return "" if b'"content": "word"' in body else f"not the whole answer: {body[:80]!r}"
    events = body.count(b"data: {")
    return "" if events == words and body.endswith(b"data: [DONE]\n\n") else f"truncated after {events} of {words} events"


async def switch_under_load(site: Site, plain_per_s: float, streams_per_s: float, steady_s: float) -> Figures:
    """Promote, roll back and promote by steps, with `steady_s` seconds of load before, between and after."""
    figures = Figures()
    load = Load(site.port, site.key, figures)
    running = asyncio.create_task(load.run(plain_per_s, streams_per_s))
    await asyncio.sleep(steady_s)
    await asyncio.to_thread(site.registry.promote, site.second.id, EVIDENCE, "ann")
    figures.flips.append(Flip("promotion", time.time(), site.first.id))
    await asyncio.sleep(steady_s)
    await asyncio.to_thread(site.registry.rollback, "clinic", "ann", "to see whether anybody notices")
    figures.flips.append(Flip("rollback", time.time(), site.second.id))
    await asyncio.sleep(steady_s)
    figures.flips.append(await _by_steps(site))
    await asyncio.sleep(steady_s)
    load.stop()
    await running
    return figures


async def _by_steps(site: Site) -> Flip:
    lease = utc_now() + timedelta(seconds=LEASE_S)
    await asyncio.to_thread(site.registry.rollouts.start, site.third.id, EVIDENCE, "ann", lease)
    async with asyncio.timeout(240):
        while (state := (await asyncio.to_thread(site.registry.release, site.third.id)).state) is State.CANARY:
            await asyncio.sleep(0.1)
    assert state is State.LIVE, (await asyncio.to_thread(site.registry.history, site.third.id))[-1].reason
    # The step is stamped before its commit, so this flip is measured from a little too early.
    return Flip("last step", site.registry.history(site.third.id)[-1].at.timestamp(), site.first.id)


def until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for something to become true."""
    limit = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.1)


def report(figures: Figures) -> None:
    """Print what callers saw."""
    streams = sum(answer.stream for answer in figures.answers)
    by_release = {name: sum(answer.release == name for answer in figures.answers) for name in sorted({a.release for a in figures.answers})}
    truncated = sum("truncated" in fault for fault in figures.faults)
    print(f"requests {len(figures.answers)}, of them streams {streams}; streams live during a flip {figures.live_streams()}")
    print(f"failed {len(figures.faults) - truncated}, truncated {truncated}; answered by {by_release}")
    by_worker = Counter(answer.worker for answer in figures.answers)
    print(f"gateway processes that answered {len(by_worker)}: {sorted(by_worker.values())}")
    for fault in figures.faults[:5]:
        print(f"  {fault}")
    for flip in figures.flips:
        print(f"{flip.name:10} away from {flip.before}: {figures.flip_s(flip) * 1e3:6.1f} ms")
    near, away = figures.p99_s(near=True), figures.p99_s(near=False)
    print(f"p99 of plain requests: {near * 1e3:.1f} ms near a flip, {away * 1e3:.1f} ms away from all; ratio {near / away:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rate", type=float, nargs="?", default=300.0, help="plain requests a second")
    parser.add_argument("streams", type=float, nargs="?", default=50.0, help="streams begun a second")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steady", type=float, default=6.0, metavar="SECONDS", help="load before, between and after the flips")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        with site.serving(given.workers):
            report(asyncio.run(switch_under_load(site, given.rate, given.streams, given.steady)))


if __name__ == "__main__":
    main()
