"""One server and two gateways beside it, as processes of their own over one PostgreSQL: a change reaches all, a death harms one."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from serving.records import LEASE_S
from serving.rollout_section import RolloutSection, RolloutStep
from serving.slots import free_port
from tests.fakes_postgres import Cluster
from tests.fakes_serving import EVIDENCE, approved, write_model
from tests.fakes_site import Site, ask, until

pytestmark = pytest.mark.slow


class Fleet:
    """The server's gateway and two more, by their ports."""

    def __init__(self, site: Site, server: subprocess.Popen[str]) -> None:
        self.site, self.server = site, server
        self.beside = dict[int, subprocess.Popen[str]]()

    @property
    def ports(self) -> list[int]:
        return [self.site.port, *self.beside]

    def join(self, number: int = 1, **settings: object) -> list[int]:
        """So many more gateways, which answer; their ports."""
        ports = [free_port() for _ in range(number)]
        self.beside |= {port: self.site.start("--gateway-only", port=port, **settings) for port in ports}
        until(lambda: all(map(_listens, ports)))
        return ports

    def releases(self) -> list[str]:
        """Which release answers at each gateway."""
        return [asyncio.run(ask(port, self.site.secret))[1] for port in self.ports]


def _listens(port: int) -> bool:
    return bool(_get(port, "/v1/models")[0])


def _get(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 while nobody listens."""
    line = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        line.request("GET", path)
        answer = line.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        line.close()


@contextmanager
def fleet_in(folder: Path, url: str) -> Iterator[Fleet]:
    site = Site(folder, url)
    try:
        with site.serving("--token-s", "0.1") as server:
            fleet = Fleet(site, server)
            try:
                fleet.join(2)
                yield fleet
            finally:
                for gateway in fleet.beside.values():
                    gateway.kill()
                    gateway.wait()
    finally:
        site.registry.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, postgres: Cluster) -> Iterator[Fleet]:
    with fleet_in(tmp_path_factory.mktemp("fleet"), postgres.fresh()) as running:
        yield running


def test_a_promotion_and_a_rollback_are_seen_by_all_gateways_within_a_second(fleet: Fleet) -> None:
    assert fleet.releases() == ["clinic-1"] * 3
    fleet.site.promote_another()
    until(lambda: fleet.releases() == ["clinic-2"] * 3, 1)
    fleet.site.registry.rollback("clinic", "bob", "worse")
    until(lambda: fleet.releases() == ["clinic-1"] * 3, 1)


def test_a_key_made_or_revoked_anywhere_holds_at_all_gateways(fleet: Fleet) -> None:
    key, secret = fleet.site.registry.create_key("late", list(fleet.site.registry.keys()[0].scopes))

    def statuses() -> set[int]:
        return {asyncio.run(ask(port, secret))[0] for port in fleet.ports}

    until(lambda: statuses() == {200}, 1)
    fleet.site.registry.revoke_key(key.id)
    until(lambda: statuses() == {401}, 1)


def test_only_the_server_speaks_of_releases_and_slots_and_each_gateway_of_its_own_requests(fleet: Fleet) -> None:
    pages = [_get(port, "/metrics")[1] for port in fleet.ports]
    assert ["tunegate_slot_state{" in page for page in pages] == [True, False, False]
    assert ["tunegate_release_info{" in page for page in pages] == [True, False, False]
    assert all('tunegate_requests_total{outcome="ok",release="clinic-1"' in page for page in pages)
    assert [_get(port, "/metrics/slots")[1] for port in fleet.ports][1:] == ["[]", "[]"]


def test_the_controller_hears_of_a_canary_from_each_gateway_under_a_name_of_its_own(fleet: Fleet) -> None:
    site = fleet.site
    patient = RolloutSection(steps=(RolloutStep(percent=50, min_requests=10_000),), threshold=100)
    release = approved(site.registry, digest=write_model(site.folder / "c", "third"), folder=site.folder / "c", rollout=patient)
    site.registry.want_slot(release.id, datetime.now(UTC) + timedelta(seconds=60))
    site.wait_ready(release)
    site.registry.rollouts.start(release.id, EVIDENCE, "bob", datetime.now(UTC) + timedelta(seconds=LEASE_S))
    until(lambda: release.id in {asyncio.run(ask(fleet.ports[1], site.secret))[1]}, 10)
    for port in fleet.ports:
        asyncio.run(ask(port, site.secret))
    until(lambda: len({tally.worker for tally in site.registry.rollouts.tallies() if tally.release_id == release.id}) == 3, 10)
    site.registry.rollouts.abort("clinic", "bob", "seen enough")
    until(lambda: fleet.releases() == ["clinic-1"] * 3, 5)


def test_a_gateway_that_shares_no_loopback_with_the_engine_sends_nothing_there(fleet: Fleet, tmp_path: Path) -> None:
    """Its home holds no slot: as on another machine, where 127.0.0.1 would be somebody else."""
    (port,) = fleet.join(HOME=tmp_path / "elsewhere", QUEUE_TIMEOUT_S=0)
    gateway = fleet.beside.pop(port)
    status, release, body = asyncio.run(ask(port, fleet.site.secret))
    gateway.send_signal(signal.SIGTERM)
    _, said = gateway.communicate(timeout=20)
    assert (status, release) == (503, "")
    assert "clinic" in body
    assert "its loopback is not this one" in said


def _stream_from(fleet: Fleet, port: int) -> HTTPConnection:
    """A stream of 10 words and 1 s that has begun."""
    line = HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {fleet.site.secret.get_secret_value()}", "Content-Type": "application/json"}
    question = '{"model": "clinic", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10, "stream": true}'
    line.request("POST", "/v1/chat/completions", question, headers)
    return line


def test_a_killed_gateway_takes_its_own_streams_along_and_nobody_elses(fleet: Fleet) -> None:
    server, victim, survivor = fleet.ports
    streams = [_stream_from(fleet, port).getresponse() for port in (server, victim, survivor)]
    fleet.beside[victim].kill()
    fleet.beside.pop(victim).wait()
    with pytest.raises((OSError, HTTPException)):
        streams[1].read()
    assert all(streams[number].read().endswith(b"data: [DONE]\n\n") for number in (0, 2))
    assert fleet.releases() == ["clinic-1"] * 2
    live = fleet.site.registry.server()
    assert live is not None
    assert live.pid == fleet.server.pid


def test_a_signal_has_a_gateway_finish_its_streams_and_ends_nothing_else(fleet: Fleet) -> None:
    port, gateway = fleet.beside.popitem()
    stream = _stream_from(fleet, port).getresponse()
    gateway.send_signal(signal.SIGTERM)
    assert stream.read().endswith(b"data: [DONE]\n\n")
    assert gateway.wait(timeout=20) == 0
    assert fleet.releases() == ["clinic-1"]


def test_a_gateway_without_a_registry_makes_none_and_says_where_it_looked(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.registry.close()
    gateway = site.start("--gateway-only", HOME=tmp_path / "none", REGISTRY_URL="")
    _, said = gateway.communicate(timeout=60)
    assert gateway.returncode == 1
    assert f"there is no registry at {tmp_path / 'none' / 'registry.db'}" in said
    assert not (tmp_path / "none").exists()
