"""One run of a recipe at a time, and a killed one is in nobody's way. Over both databases, with real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from serving.errors import RunUnderWay
from serving.machine import boot_id
from serving.registry import Registry
from serving.run_leases import EVERYTHING, Holder, started, this_process
from tests.fakes_serving import Clock, candidate
from training.errors import TunegateError

HOLDS = """
import sys, time
from serving.registry import Registry
with Registry(sys.argv[1]) as registry, registry.runs.held("demo", "ann"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(registry_url: str, clock: Clock) -> Iterator[Registry]:
    with Registry(registry_url, now=clock) as made:
        yield made


def told(registry: Registry) -> list[tuple[str, str]]:
    return [(line.kind, line.reason) for line in registry.approvals.lines() if line.kind.startswith("run.")]


def test_a_killed_run_makes_room_at_once(registry_url: str) -> None:
    """No clock is waited for: the process is gone, so its lease is."""
    root = str(Path(__file__).parents[2])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, registry_url], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}, cwd=root
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with Registry(registry_url) as registry:
        with pytest.raises(RunUnderWay, match=f"a run of demo is under way: process {holder.pid} on "):
            registry.runs.begin("demo", "bob")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert registry.runs.under_way() == ()
        registry.runs.begin("demo", "bob")
        assert [kind for kind, _ in told(registry)] == ["run.started", "run.crashed", "run.started"]
        assert registry.approvals.verify().faults == ()


def test_another_recipe_may_run_beside(registry: Registry) -> None:
    registry.runs.begin("demo", "ann")
    registry.runs.begin("other", "ann")
    assert [run.recipe_name for run in registry.runs.under_way()] == ["demo", "other"]


def test_what_holds_off_every_run_waits_for_none(registry: Registry) -> None:
    registry.runs.begin("demo", "ann")
    registry.runs.begin(EVERYTHING, "bob")
    with pytest.raises(RunUnderWay, match="tunegate prune is under way"):
        registry.runs.begin("other", "ann")


def failing(error: BaseException | None) -> None:
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (None, "run.finished", ""),
        (TunegateError("the disk is full", why="x"), "run.failed", "the disk is full"),
        (RuntimeError("password=secret"), "run.failed", "RuntimeError"),
        (KeyboardInterrupt(), "run.stopped", ""),
    ],
)
def test_how_a_run_ended_is_noted_and_the_next_may_begin(registry: Registry, error: BaseException | None, kind: str, reason: str) -> None:
    with suppress(BaseException), registry.runs.held("demo", "ann"):
        failing(error)
    assert told(registry) == [("run.started", ""), (kind, reason)]
    registry.runs.begin("demo", "bob")


def looked(registry: Registry, failure: str | None) -> None:
    """What is done every quarter of an hour, and fails in this way."""
    with suppress(TunegateError), registry.runs.noticed("look-for-data of demo.yaml", "look-for-data"):
        failing(None if failure is None else TunegateError(failure))


def test_what_fails_again_and_again_in_the_same_way_is_told_once_until_it_changes_heals_or_a_day_has_passed(
    registry: Registry, clock: Clock
) -> None:
    for failure in (None, "gone", "gone", "forbidden", "forbidden", None, None, "forbidden"):
        looked(registry, failure)
        clock.forward(900)
    clock.forward(86_400)
    looked(registry, "forbidden")
    assert told(registry) == [
        ("run.failed", "gone"),
        ("run.failed", "forbidden"),
        ("run.finished", "works again"),
        ("run.failed", "forbidden"),
        ("run.failed", "forbidden"),
    ]


def test_a_run_that_is_tried_again_and_fails_in_the_same_way_is_kept_and_told_once(registry: Registry, clock: Clock) -> None:
    for failure in ("no answer", "no answer", "no room", None, "no room"):
        with suppress(TunegateError), registry.runs.held("promotion of clinic-2", "ann"):
            failing(None if failure is None else TunegateError(failure))
        clock.forward(10)
    ends = [kind for kind, _ in told(registry) if kind != "run.started"]
    assert ends == ["run.failed", "run.failed_again", "run.failed", "run.finished", "run.failed"]
    assert registry.runs.last_heard("promotion of clinic-2") == "run.failed"
    assert registry.approvals.verify().faults == ()


@pytest.mark.parametrize(
    "gone",
    [
        replace(this_process(), boot_id="another boot"),
        replace(this_process(), process_started="1"),
        replace(this_process(), pid=2**22 + 1),
    ],
)
def test_a_process_of_another_boot_or_that_took_over_the_number_is_not_the_run(registry: Registry, gone: Holder) -> None:
    registry.runs.begin("demo", "ann", gone)
    assert registry.runs.under_way() == ()
    assert [run.holder.pid for run in registry.runs.bury_the_dead()] == [gone.pid]
    assert registry.runs.bury_the_dead() == ()


@pytest.mark.parametrize(("passed_s", "alive"), [(0, True), (59, True), (61, False), (-61, False)])
def test_on_another_machine_a_run_lives_while_its_heartbeat_is_fresh(
    registry: Registry, clock: Clock, passed_s: float, alive: bool
) -> None:
    registry.runs.begin("demo", "ann", Holder("elsewhere", "boot", 1, "1"))
    clock.time += timedelta(seconds=passed_s)
    assert bool(registry.runs.under_way()) is alive


def test_what_a_crashed_run_had_started_for_its_candidate_is_let_go(registry: Registry, clock: Clock) -> None:
    release = candidate(registry)
    registry.want_slot(release.id, clock() + timedelta(hours=1))
    registry.runs.begin("demo", "ann", replace(this_process(), boot_id="another boot"))
    registry.runs.bury_the_dead()
    assert registry.snapshot().leases == {}


def test_a_zombie_does_not_live() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert started(child.pid) is None
    child.wait()
    assert started(os.getpid()) == this_process().process_started
    assert boot_id() == boot_id() != ""
