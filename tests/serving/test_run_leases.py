"""One run of a recipe at a time, and a killed one is in nobody's way. Over both databases, with real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from serving import run_leases
from serving.database import Database
from serving.errors import LeaseLost, RunUnderWay
from serving.machine import boot_id
from serving.registry import Registry
from serving.run_book import RunBook
from serving.run_leases import EVERYTHING, Holder, Run, started, this_process
from tests.fakes_serving import Clock, candidate, url_in
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


ELSEWHERE = Holder("elsewhere", "boot", 1, "1")


@pytest.fixture
def file(tmp_path: Path, clock: Clock) -> Iterator[Registry]:
    """What is told by looking again and again is the same over both databases."""
    with Registry(url_in(tmp_path), now=clock) as made:
        yield made


class Watcher:
    """A `RunBook` on this machine; time passes for it by `pause` alone, and `beats` says what a run elsewhere does meanwhile."""

    def __init__(self, registry: Registry, clock: Clock, beats: Callable[[float], None] = lambda _: None) -> None:
        self.clock, self.beats, self.passed_s = clock, beats, 0.0
        self.book = RunBook(registry.runs._database, clock, lambda: self.passed_s, self.pause)

    def pause(self, seconds: float) -> None:
        self.passed_s += seconds
        self.clock.forward(seconds)
        self.beats(seconds)

    def buries_after(self, seconds: float) -> bool:
        """Whether a run elsewhere is marked as crashed within `seconds`; looked at now and then, as a server does."""
        for step_s in (*[5] * int(seconds // 5), seconds % 5):
            if self.book.bury_the_dead():
                return True
            self.pause(step_s)
        return bool(self.book.bury_the_dead())


def beating(registry: Registry, clock: Clock) -> Callable[[float], None]:
    """What a run elsewhere does: it beats, by a clock that it takes for right."""

    def beat(passed_s: float) -> None:
        clock.forward(passed_s)
        with registry.runs._database.write() as connection:
            assert run_leases.beat(connection, registry.runs._open()[0].id, clock())

    return beat


JUMPS_S = (0, 61, -61, 86_400, -86_400)


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_clock_that_jumps_here_buries_no_run_that_beats_elsewhere(file: Registry, clock: Clock, jump_s: float) -> None:
    file.runs.begin("demo", "ann", ELSEWHERE)
    theirs, ours = Clock(), clock
    watcher = Watcher(file, ours, beating(file, theirs))
    assert not watcher.buries_after(10)
    ours.forward(jump_s)
    assert not watcher.buries_after(90)


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_clock_that_jumps_elsewhere_buries_no_run_that_beats(file: Registry, clock: Clock, jump_s: float) -> None:
    file.runs.begin("demo", "ann", ELSEWHERE)
    theirs = Clock()
    theirs.forward(jump_s)
    watcher = Watcher(file, clock, beating(file, theirs))
    assert not watcher.buries_after(90)


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_run_elsewhere_that_beats_no_more_is_buried_after_a_minute_whatever_the_clocks_say(
    file: Registry, clock: Clock, jump_s: float
) -> None:
    file.runs.begin("demo", "ann", ELSEWHERE)
    watcher = Watcher(file, clock)
    clock.forward(jump_s)
    assert not watcher.buries_after(59)
    assert watcher.buries_after(1)


@pytest.mark.parametrize("jump_s", [61, -61])
def test_a_new_run_watches_one_elsewhere_that_looks_silent_and_gives_way_when_it_beats(file: Registry, clock: Clock, jump_s: float) -> None:
    file.runs.begin("demo", "ann", ELSEWHERE)
    theirs = Clock()
    watcher = Watcher(file, clock, beating(file, theirs))
    clock.forward(jump_s)
    with pytest.raises(RunUnderWay, match="on elsewhere"):
        watcher.book.begin("demo", "bob")
    assert watcher.passed_s == 1


@pytest.mark.parametrize("jump_s", [61, -61])
def test_a_new_run_takes_over_from_one_elsewhere_that_stays_silent(file: Registry, clock: Clock, jump_s: float) -> None:
    file.runs.begin("demo", "ann", ELSEWHERE)
    watcher = Watcher(file, clock)
    clock.forward(jump_s)
    watcher.book.begin("demo", "bob")
    assert watcher.passed_s == 60
    assert [kind for kind, _ in told(file)] == ["run.started", "run.crashed", "run.started"]


def test_a_run_elsewhere_that_has_just_beaten_is_given_way_to_at_once(file: Registry, clock: Clock) -> None:
    file.runs.begin("demo", "ann", ELSEWHERE)
    watcher = Watcher(file, clock)
    with pytest.raises(RunUnderWay):
        watcher.book.begin("demo", "bob")
    assert watcher.passed_s == 0


def test_a_run_that_was_taken_for_dead_is_broken_off_before_it_writes(registry_url: str, registry: Registry, clock: Clock) -> None:
    """It waits for something that takes a minute; the next beat finds the lease gone. What another run has begun since is let be."""
    book, written, others = RunBook(Database(registry_url), clock, beat_s=0.05), list[str](), list[threading.Thread]()
    began = time.monotonic()

    def bury_and_follow(run: Run) -> None:
        registry.runs.end(run, "crashed", "its process is gone")
        registry.runs.begin("demo", "bob")

    def work() -> None:
        with book.held("demo", "ann") as run:
            others.append(threading.Thread(target=bury_and_follow, args=(run,)))  # what breaks ann off must not break off bob's begin
            others[0].start()
            time.sleep(60)
            written.append("a record")

    with pytest.raises(LeaseLost, match="this run of demo was taken for dead"):
        work()
    others[0].join()
    assert written == []
    assert time.monotonic() - began < 20
    assert [each.requester for each in registry.runs.under_way()] == ["bob"]
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_a_run_that_finds_only_at_its_end_that_it_was_taken_for_dead_does_not_end_well(
    registry_url: str, registry: Registry, clock: Clock
) -> None:
    """In a thread nothing can be broken off."""
    book, faults = RunBook(Database(registry_url), clock, beat_s=0.02), list[Exception]()

    def work() -> None:
        try:
            with book.held("demo", "ann") as run:
                registry.runs.end(run, "crashed", "its process is gone")
                time.sleep(0.5)
        except LeaseLost as error:
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(faults) == 1


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
