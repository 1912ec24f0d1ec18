"""One server whose callers are taken by two processes: what holds for one gateway holds for both together.

`x-request-id` tells which process has answered. A connection is led to one worker by stopping the other while it is taken.
"""

import asyncio
import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import aiohttp
import psutil
import pytest
from pydantic import SecretStr

from serving.keys import KeyTerms, Scope
from serving.records import LEASE_S
from serving.rollout_section import RolloutSection, RolloutStep
from tests.fakes_serving import EVIDENCE, approved, write_model
from tests.fakes_site import Site, until

pytestmark = pytest.mark.slow

PLACES, QUEUE = 8, 3
SETTINGS = {"GATEWAY_WORKERS": 2, "MAX_IN_FLIGHT": PLACES, "MAX_QUEUE": QUEUE, "CAPTURE_RATIO": 1, "QUEUE_TIMEOUT_S": 20}


class House:
    """The server, and lines to each of its workers."""

    def __init__(self, site: Site, server: subprocess.Popen[str]) -> None:
        self.site, self.server = site, server

    @property
    def workers(self) -> list[psutil.Process]:
        return sorted(self.site.workers(self.server), key=lambda process: process.pid)

    def line_to(self, worker: psutil.Process) -> HTTPConnection:
        """A kept connection to this worker."""
        others = [other for other in self.workers if other != worker]
        for other in others:
            other.suspend()
        try:
            line = HTTPConnection("127.0.0.1", self.site.port, timeout=30)
            line.request("GET", "/health")
            line.getresponse().read()
        finally:
            for other in others:
                other.resume()
        return line

    def lines(self) -> list[HTTPConnection]:
        """One to each worker."""
        return [self.line_to(worker) for worker in self.workers]

    def send(self, line: HTTPConnection, secret: SecretStr | None = None, *, words: int = 1, stream: bool = False, **more: str) -> None:
        """Ask, without waiting for the answer."""
        question = {"model": "clinic", "messages": [{"role": "user", "content": "hi"}], "max_tokens": words, "stream": stream}
        self.post(line, "/v1/chat/completions", question | more, secret)

    def post(self, line: HTTPConnection, path: str, body: object, secret: SecretStr | None = None) -> None:
        """Send a body."""
        key = (secret or self.site.secret).get_secret_value()
        line.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})

    def routing_of(self, line: HTTPConnection) -> tuple[list[str], dict[str, bool], str | None]:
        """What the worker at the other end knows: the names, which of them are ready, and who answers."""
        line.request("GET", "/v1/models", headers={"Authorization": f"Bearer {self.site.secret.get_secret_value()}"})
        names = [model["id"] for model in json.loads(line.getresponse().read())["data"]]
        line.request("GET", "/health")
        ready = json.loads(line.getresponse().read())["ready"]
        return names, ready, self.ask(line).headers["x-tunegate-release"]

    def ask(self, line: HTTPConnection, secret: SecretStr | None = None, **more: str) -> HTTPResponse:
        """Ask, and read the whole answer."""
        self.send(line, secret, **more)
        answer = line.getresponse()
        answer.read()
        return answer

    def page(self, line: HTTPConnection) -> str:
        """The metrics page, as this worker shows it."""
        line.request("GET", "/metrics")
        return line.getresponse().read().decode()

    def answered(self, line: HTTPConnection) -> float:
        """What the page says of good answers."""
        return sum(map(float, re.findall(r'tunegate_requests_total\{outcome="ok",release="clinic-\d",.*?\} (\S+)', self.page(line))))

    def fresh(self) -> HTTPConnection:
        """A connection to whoever takes it."""
        return HTTPConnection("127.0.0.1", self.site.port, timeout=30)


@contextmanager
def house_in(folder: Path) -> Iterator[House]:
    site = Site(folder)
    try:
        with site.serving("--token-s", "0.1", **SETTINGS) as server:
            until(lambda: len(site.workers(server)) == 2 and _answers(site.port))
            yield House(site, server)
    finally:
        site.registry.close()


def _answers(port: int) -> bool:
    line = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        line.request("GET", "/health")
        return line.getresponse().status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_in(tmp_path_factory.mktemp("house")) as running:
        yield running


def worker_of(answer: HTTPResponse) -> str:
    """Which process has answered."""
    return str(answer.headers["x-request-id"]).split("-")[1]


def test_both_workers_answer_and_either_shows_the_same_sums(house: House) -> None:
    one, other = house.lines()
    before = house.answered(one)
    answers = [house.ask(line) for line in (one, one, one, other, other)]
    assert Counter(answer.status for answer in answers) == {200: 5}
    assert sorted(Counter(map(worker_of, answers)).values()) == [2, 3]
    assert house.answered(one) == house.answered(other) == before + 5
    page = house.page(other)
    assert 'tunegate_slot_state{release="clinic-1",state="ready"} 1.0' in page
    assert "pid=" not in page
    names = re.findall(r"^# TYPE (\S+)", page, flags=re.MULTILINE)
    assert len(names) == len(set(names)) > 30
    assert {"process_cpu_seconds_total", "tunegate_requests_total", "tunegate_disk_free_bytes"} <= set(names)


def test_requests_under_way_are_those_of_both(house: House) -> None:
    one, other = house.lines()
    for line in (one, other):
        house.send(line, words=5, stream=True)
    streams = [line.getresponse() for line in (one, other)]
    assert 'tunegate_requests_in_flight{release="clinic-1"} 2.0' in house.page(house.fresh())
    assert all(stream.read().endswith(b"data: [DONE]\n\n") for stream in streams)
    until(lambda: 'tunegate_requests_in_flight{release="clinic-1"} 0.0' in house.page(house.fresh()), 5)


def key_for(house: House, terms: KeyTerms, *scopes: Scope) -> SecretStr:
    """A key that both workers know."""
    _, secret = house.site.registry.create_key("more", scopes or (Scope.INFER,), terms)
    until(lambda: all(_opens(line, secret) for line in house.lines()), 5)
    return secret


def _opens(line: HTTPConnection, secret: SecretStr) -> bool:
    line.request("GET", "/v1/models", headers={"Authorization": f"Bearer {secret.get_secret_value()}"})
    answer = line.getresponse()
    answer.read()
    return answer.status != 401


def test_a_keys_rate_is_counted_over_both_workers(house: House) -> None:
    secret = key_for(house, KeyTerms(requests_per_minute=3))
    lines = house.lines() * 2
    assert [house.ask(line, secret).status for line in lines] == [200, 200, 200, 429]


def test_a_keys_requests_at_a_time_are_counted_over_both_workers(house: House) -> None:
    secret = key_for(house, KeyTerms(max_concurrent=2))
    one, other = house.lines()
    for line in (one, other):
        house.send(line, secret, words=5, stream=True)
        assert line.getresponse().status == 200
    assert house.ask(house.fresh(), secret).status == 429


def test_places_and_queue_are_those_of_both_and_whoever_waits_in_either_is_served(house: House) -> None:
    """Streams of 2 s take all places; of those who come meanwhile, to both workers, all wait but one, for whom the queue has no room."""
    lines = [line for _ in range(6) for line in house.lines()]
    running, late = lines[:PLACES], lines[PLACES : PLACES + QUEUE + 1]
    for line in running:
        house.send(line, words=20, stream=True)
    streams = [line.getresponse() for line in running]
    for line in late:
        house.send(line)
    answers = [line.getresponse() for line in late]
    assert sorted(answer.status for answer in answers) == [*[200] * QUEUE, 429]
    assert next(answer for answer in answers if answer.status == 429).headers["retry-after"] == "1"
    assert all(stream.read().endswith(b"data: [DONE]\n\n") for stream in streams)


def test_an_answer_is_kept_once_and_its_feedback_is_taken_by_the_other_worker(house: House) -> None:
    one, other = house.lines()
    name = house.ask(one).headers["x-request-id"]

    def thanked() -> int:
        house.post(other, "/v1/feedback", {"request_id": name, "rating": "up"})
        answer = other.getresponse()
        answer.read()
        return answer.status

    assert thanked() == 202
    kept = house.site.home / "kept"
    until(lambda: _kinds(kept, name) == ["answer", "feedback"], 20)
    house.post(other, "/v1/feedback", {"request_id": "req-0-0", "rating": "up"})
    assert other.getresponse().status == 404


def _kinds(folder: Path, name: str) -> list[str]:
    records = (json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines())
    return [record["kind"] for record in records if record["request_id"] == name]


def test_live_answers_are_looked_at_in_one_place(house: House) -> None:
    """The first good answer is sampled; there is no suite to hold it against, and the page says so."""
    line = house.fresh()
    house.ask(line)
    until(lambda: 'tunegate_live_unchecked_total{reason="no_reference",release="clinic-1"} 0.0' not in house.page(line), 30)
    children = [child.cmdline() for child in psutil.Process(house.server.pid).children(recursive=True)]
    assert sum("serving.live_check" in command for command in children) == 1


def test_approvers_are_served_by_either_worker(house: House) -> None:
    secret = key_for(house, KeyTerms(), Scope.APPROVE)
    for line in house.lines():
        line.request("GET", "/admin/releases", headers={"Authorization": f"Bearer {secret.get_secret_value()}"})
        answer = line.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, {"releases": []})


def test_a_registry_that_is_gone_is_seen_in_the_age_of_each_parts_last_look_and_callers_are_answered(house: House) -> None:
    line, file, aside = house.fresh(), house.site.home / "registry.db", house.site.home / "aside.db"

    def ages_s() -> dict[str, float]:
        found = re.findall(r'^tunegate_(\w*)registry_seen_timestamp_seconds(?:{part="(\w+)"})? (\S+)', house.page(line), re.MULTILINE)
        return {part or gateway: time.time() - float(at) for gateway, part, at in found}

    assert set(ages_s()) == {"gateway_", "server", "supervisor", "rollouts"}
    until(lambda: max(ages_s().values()) < 1, 5)
    file.rename(aside)
    try:
        until(lambda: min(ages_s().values()) > 1, 5)
        assert house.ask(line).status == 200
    finally:
        aside.rename(file)
    until(lambda: max(ages_s().values()) < 1, 5)


def test_a_flip_is_seen_by_both_workers(house: House) -> None:
    """Within 1 s, on a machine that may be busy; `tests/benchmarks/rollout_switch.py` measures it."""
    lines = house.lines()
    house.site.promote_another()
    until(lambda: {house.ask(line).headers["x-tunegate-release"] for line in lines} == {"clinic-2"}, 1)
    house.site.registry.rollback("clinic", "bob", "worse")
    until(lambda: {house.ask(line).headers["x-tunegate-release"] for line in lines} == {"clinic-1"}, 1)


def test_a_canary_has_the_same_callers_at_both_workers(house: House) -> None:
    site = house.site
    patient = RolloutSection(steps=(RolloutStep(percent=50, min_requests=10_000),), threshold=100)
    release = approved(site.registry, digest=write_model(site.folder / "c", "third"), folder=site.folder / "c", rollout=patient)
    site.registry.want_slot(release.id, datetime.now(UTC) + timedelta(seconds=60))
    site.wait_ready(release)
    site.registry.rollouts.start(release.id, EVIDENCE, "bob", datetime.now(UTC) + timedelta(seconds=LEASE_S))
    lines, callers = house.lines(), [f"caller {number}" for number in range(24)]

    def releases_of(line: HTTPConnection) -> list[str | None]:
        return [house.ask(line, user=caller).headers["x-tunegate-release"] for caller in callers]

    until(lambda: all(release.id in releases_of(line) for line in lines), 5)
    one, other = map(releases_of, lines)
    assert one == other
    assert set(one) == {"clinic-1", release.id}
    site.registry.rollouts.abort("clinic", "bob", "seen enough")
    until(lambda: all(set(releases_of(line)) == {"clinic-1"} for line in lines), 5)


async def _load(house: House, stop: asyncio.Event, answers: Counter[str], seen: set[str]) -> None:
    """Eight callers, half with a connection for each request, half with kept ones; half of them ask for streams."""
    url = f"http://127.0.0.1:{house.site.port}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {house.site.secret.get_secret_value()}"}

    async def caller(client: aiohttp.ClientSession, stream: bool) -> None:
        question = {"model": "clinic", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3 if stream else 1, "stream": stream}
        while not stop.is_set():
            async with client.post(url, json=question) as answer:
                body = await answer.read()
                whole = answer.status == 200 and (not stream or body.endswith(b"data: [DONE]\n\n"))
                answers["ok" if whole else f"{answer.status} {body[-200:]!r}"] += 1
                seen.add(answer.headers["x-request-id"].split("-")[1])
            await asyncio.sleep(0.01)

    connectors = [aiohttp.TCPConnector(limit=0, force_close=close) for close in (True, False)]
    fresh, kept = (aiohttp.ClientSession(connector=connector, headers=headers) for connector in connectors)
    async with fresh, kept, asyncio.TaskGroup() as callers:
        for number in range(8):
            callers.create_task(caller((fresh, kept)[number % 2], number % 4 < 2))


def test_workers_are_exchanged_one_by_one_under_load_without_a_loss_and_the_counters_go_on(house: House) -> None:
    before, counted = set(house.workers), house.answered(house.fresh())
    answers, seen = Counter[str](), set[str]()

    async def story() -> None:
        stop = asyncio.Event()
        load = asyncio.create_task(_load(house, stop, answers, seen))
        await asyncio.sleep(0.5)
        house.server.send_signal(signal.SIGHUP)
        await asyncio.to_thread(until, lambda: len(now := set(house.workers)) == 2 and not now & before, 240)
        await asyncio.sleep(0.5)
        stop.set()
        await load

    asyncio.run(story())
    assert answers.keys() == {"ok"}
    assert answers["ok"] > 50
    assert len(seen) == 4
    assert house.answered(house.fresh()) == counted + answers["ok"]


def test_a_killed_worker_takes_its_own_streams_along_and_nobody_elses_and_is_replaced(house: House) -> None:
    """Its places and its keys' requests are free again, what it had counted is still counted, and who follows knows who answers."""
    secret = key_for(house, KeyTerms(max_concurrent=2))
    victim, survivor = house.workers
    one, other = house.line_to(victim), house.line_to(survivor)
    counted = house.answered(one)
    assert house.ask(one).status == 200
    for line in (one, other):
        house.send(line, secret, words=10, stream=True)
    broken, whole = one.getresponse(), other.getresponse()
    victim.kill()
    with pytest.raises((OSError, HTTPException)):
        broken.read()
    assert [house.ask(house.fresh()).status for _ in range(5)] == [200] * 5
    until(lambda: house.ask(house.fresh(), secret).status == 200, 5)
    assert whole.read().endswith(b"data: [DONE]\n\n")
    until(lambda: len(house.workers) == 2 and victim not in house.workers, 120)
    until(lambda: house.answered(house.fresh()) >= counted + 8, 5)
    assert 'tunegate_requests_in_flight{release="clinic-1"} 0.0' in house.page(house.fresh())
    (successor,) = set(house.workers) - {survivor}
    assert house.routing_of(house.line_to(successor)) == house.routing_of(other) == (["clinic"], {"clinic": True}, "clinic-1")


def test_a_signal_has_every_worker_finish_its_streams(house: House) -> None:
    """The last test of this server."""
    workers, lines = house.workers, house.lines()
    for line in lines:
        house.send(line, words=10, stream=True)
    streams = [line.getresponse() for line in lines]
    house.server.send_signal(signal.SIGTERM)
    assert all(stream.read().endswith(b"data: [DONE]\n\n") for stream in streams)
    assert house.server.wait(timeout=20) == 0
    assert not any(worker.is_running() for worker in workers)
