"""The background server: it comes up, or the end of its log says why not; and it goes when it is told to."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.errors import ServingFailed
from flows.judging import register
from flows.serving_control import endpoint_of, ensure_server, start_slot, stop_server, wait_for_slot
from serving.gateway_front import listen
from serving.registry import Registry
from serving.settings import Settings
from serving.slots import free_port
from tests.fakes_flows import SAFE, Site, merged_model
from training.progress import Progress, silent

ENSURE = """
from flows.serving_control import ensure_server, open_registry
from serving.settings import load_settings
settings = load_settings()
with open_registry(settings) as registry:
    print(ensure_server(settings, registry).pid)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = Settings(home=tmp_path / "home", port=free_port())
    monkeypatch.setenv("TUNEGATE_PORT", str(made.port))
    made.home.mkdir()
    return made


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    with Registry(settings.database_url) as opened:
        yield opened


def test_a_port_that_is_taken_is_an_error_with_the_end_of_the_servers_log(settings: Settings, registry: Registry) -> None:
    with listen("127.0.0.1", settings.port), pytest.raises(ServingFailed) as caught:
        ensure_server(settings, registry)
    assert "the server ended with status 1" in caught.value.what
    assert f"port {settings.port} on 127.0.0.1 is taken" in caught.value.what
    assert str(settings.home / "serve.log") in caught.value.do
    assert registry.server() is None


def test_a_server_is_started_once_outlives_the_call_and_stops_when_told(settings: Settings, registry: Registry) -> None:
    server = ensure_server(settings, registry)
    process = psutil.Process(server.pid)
    try:
        assert (server.port, os.getsid(server.pid) != os.getsid(0)) == (settings.port, True)
        assert ensure_server(settings, registry).boot_id == server.boot_id
        stopped = stop_server(registry, 30)
        assert stopped is not None
        assert stopped.pid == server.pid
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        assert registry.server() is None
    finally:
        if process.is_running():
            process.kill()


@pytest.mark.slow
def test_two_runs_that_start_at_once_end_with_one_server(settings: Settings, registry: Registry) -> None:
    env = {**os.environ, "TUNEGATE_HOME": str(settings.home), "PYTHONPATH": str(Path(__file__).parents[2])}
    runs = [subprocess.Popen([sys.executable, "-c", ENSURE], env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        pids = {run.communicate(timeout=120)[0].strip() for run in runs}
        assert [run.returncode for run in runs] == [0, 0]
        assert len(pids) == 1
    finally:
        stop_server(registry, 30)
        for late in servers_of(settings):  # the one that was not needed may still be starting
            late.kill()


def servers_of(settings: Settings) -> list[psutil.Process]:
    """The server processes of this home, whoever started them."""
    return [process for process in psutil.process_iter() if _serves(process, settings)]


def _serves(process: psutil.Process, settings: Settings) -> bool:
    try:
        return "flows.cli" in process.cmdline() and process.environ().get("TUNEGATE_HOME") == str(settings.home)
    except psutil.Error:
        return False


def test_stopping_where_nothing_runs_is_no_error(registry: Registry) -> None:
    assert stop_server(registry, 1) is None


def test_waiting_for_a_slot_reports_what_the_supervisor_says_and_ends_with_its_address(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "waited")
    release = register(line, merged_model(line, SAFE))
    heard: list[Progress] = []
    endpoint = start_slot(site.registry, site.settings, release, 60, heard.append)
    assert (endpoint.model, endpoint.base_url in heard[-1].note) == (release.id, True)
    assert wait_for_slot(site.registry, site.settings, release, silent) == endpoint
    assert endpoint.api_key.get_secret_value() not in repr(endpoint) + repr(heard)


def test_a_slot_that_stopped_while_it_was_asked_is_an_error(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "gone")
    release = register(line, merged_model(line, SAFE))
    start_slot(site.registry, site.settings, release, 60, silent)
    slot = next(each for each in site.registry.slots() if each.release_id == release.id)
    (site.settings.slot_folder(release.id) / "key").unlink()
    with pytest.raises(ServingFailed, match="stopped while it was being asked"):
        endpoint_of(site.settings, release, slot)


def test_a_slot_that_does_not_come_up_in_time_is_an_error(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "late")
    release = register(line, merged_model(line, SAFE))
    impatient = site.settings.model_copy(update={"start_timeout_s": 0.5})
    with pytest.raises(ServingFailed, match="was not ready after"):
        wait_for_slot(site.registry, impatient, release, silent)
