"""Going back, by hand and by itself, while neither Prefect nor Prometheus can be reached."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving.lifecycle import State
from serving.records import LEASE_S, Release
from serving.rollout_section import RolloutSection, RolloutStep
from serving.slots import free_port
from tests.fakes_serving import EVIDENCE, approved, write_model
from tests.fakes_site import ROOT, Site, until

pytestmark = pytest.mark.slow

PATIENT = RolloutSection(steps=(RolloutStep(percent=50, min_requests=10_000),), interval_s=0.2, threshold=2)
SERVE_WITH_PREFECT = """
import os, sys
from flows.prefect_events import prefect_outlets
from serving.server import serve
from serving.settings import load_settings
from tests.fakes_serving import fake_engine
serve(load_settings(), fake_engine(*sys.argv[1:]), prefect_outlets(os.environ["PREFECT_API_URL"]))
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Prefect is where nobody listens; of a Prometheus, no setting of the server says anything."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    opened = Site(tmp_path)
    opened.script = SERVE_WITH_PREFECT
    yield opened
    opened.registry.close()


def a_canary(site: Site) -> Release:
    """One with half of the traffic, under the server's own controller."""
    release = approved(site.registry, digest=write_model(site.folder / "c", "third"), folder=site.folder / "c", rollout=PATIENT)
    site.registry.want_slot(release.id, datetime.now(UTC) + timedelta(seconds=60))
    site.wait_ready(release)
    site.registry.rollouts.start(release.id, EVIDENCE, "bob", datetime.now(UTC) + timedelta(seconds=LEASE_S))
    return release


def kill_engine(site: Site, release: Release) -> None:
    pid = next(slot.pid for slot in site.registry.slots() if slot.release_id == release.id)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_bad_canary_goes_back_by_itself_and_a_champion_by_hand_without_prefect_and_prometheus(site: Site) -> None:
    with site.serving(RESTART_FIRST_S=30) as server:
        release = a_canary(site)
        kill_engine(site, release)
        until(lambda: site.registry.release(release.id).state is State.ROLLED_BACK, 60)
        assert site.registry.history(release.id)[-1].actor == "rollout controller"
        live = site.promote_another()
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TUNEGATE_HOME": str(site.home), "TUNEGATE_PORT": str(site.port)}
        command = [sys.executable, "-m", "flows.cli", "rollback", "clinic", "--as", "eve", "--json"]
        went = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert went.returncode == 0, went.stderr
        assert (json.loads(went.stdout)["id"], site.registry.release(live.id).state) == ("clinic-1", State.ROLLED_BACK)
    assert server.stderr is not None
    assert "Prefect could not be told" in server.stderr.read()
