"""Promotions by steps over a real registry and a simulated day of traffic: who ends with the traffic, when, and why."""

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from serving.lifecycle import State
from serving.records import RolloutStatus, SlotState
from serving.rollout_counts import Tallies
from tests.fakes_rollout import SECTION, Behaviour, Town

IN_TIME_S = SECTION.interval_s * SECTION.threshold + 1


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    yield made
    made.registry.close()


def rolled_back(town: Town) -> Callable[[], bool]:
    return lambda: town.state() is State.ROLLED_BACK


def test_a_release_as_good_as_the_champion_takes_every_step_and_then_all_the_traffic(town: Town) -> None:
    """Two steps of at least 20 s; at 5 % of 500 requests a second, 300 of them take 12 s."""
    town.start()
    took_s = town.live(240, lambda: town.state() is State.LIVE)
    rollout = town.registry.rollouts.newest("clinic-2")
    assert rollout is not None
    assert (town.state(1), rollout.status, took_s < 100) == (State.RETIRED, RolloutStatus.WATCHING, True)
    assert [(verdict.share, verdict.outcome) for verdict in rollout.verdicts] == [(0.05, "PASS"), (0.25, "PASS")]
    town.live(SECTION.watch_s + 10)
    done = town.registry.rollouts.newest("clinic-2")
    assert done is not None
    assert (done.status, town.state(), town.registry.rollouts.current("clinic")) == (RolloutStatus.DONE, State.LIVE, None)
    assert town.registry.verify().faults == ()


BAD = {
    "5 % of its requests fail": (Behaviour(failed=0.05), {"failed requests"}),
    "3 times as slow": (Behaviour(pace=3), {"latency p50", "latency p95"}),
    "first token 3 times as late": (Behaviour(first_token_pace=3), {"first token p50", "first token p95"}),
    "garbage": (Behaviour(broken=0.5), {"broken rules"}),
    "refuses what the champion answers": (Behaviour(refused=0.1), {"refused requests"}),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_canary_is_rolled_back_in_time_and_the_champion_goes_on(town: Town, fault: str) -> None:
    """What it fails in is on the metrics page from the first look that found it until it is taken back."""
    town.per_s, town.checked = 800, 1.0
    town.behaves["clinic-2"], found = BAD[fault]
    town.start()
    assert town.live(60, rolled_back(town)) <= IN_TIME_S
    assert (town.state(), town.state(1), town.share()) == (State.ROLLED_BACK, State.LIVE, 0)
    last = town.registry.history("clinic-2")[-1]
    assert (last.actor, last.to_state) == ("rollout controller", State.ROLLED_BACK)
    assert (town.found_failing, town.series("rollout_failing")) == (found, {})
    assert town.series("rollouts_ended")["rolled_back", "FAIL"] == 1


@pytest.mark.parametrize("fault", ["5 % of its requests fail", "3 times as slow"])
def test_a_canary_that_turns_bad_later_is_rolled_back_as_fast(town: Town, fault: str) -> None:
    """100 requests a second at the canary: each look alone has evidence enough, whatever the good time before it says."""
    town.per_s = 2000
    town.start()
    town.live(11)
    town.behaves["clinic-2"], _ = BAD[fault]
    assert town.live(60, rolled_back(town)) <= IN_TIME_S


def test_looks_that_come_late_do_not_make_the_rollback_later_than_one_of_them(tmp_path: Path) -> None:
    """A tick of 0.3 s meets looks 1 s apart up to 0.3 s late; twelve of them after each other would be 2.4 s late."""
    section = SECTION.model_copy(update={"interval_s": 1.0, "threshold": 12})
    town = Town(tmp_path, section=section, per_s=2000, tick_s=0.3)
    town.behaves["clinic-2"] = Behaviour(failed=0.5)
    town.start()
    assert town.live(60, rolled_back(town)) <= 1.0 * 12 + 1
    town.registry.close()


def test_after_a_pause_no_two_looks_judge_the_same_requests(town: Town) -> None:
    """One FAIL, then the server stood still for four intervals: one look is due, not four, and two FAILs are not yet three."""
    town.behaves["clinic-2"] = Behaviour(failed=0.5)
    town.start()
    town.live(6)
    town.clock.forward(4 * SECTION.interval_s)
    town.live(4)
    rollout = town.registry.rollouts.current("clinic")
    assert rollout is not None
    assert (town.state(), rollout.failures) == (State.CANARY, 2)


def test_a_release_that_turns_bad_with_all_the_traffic_is_rolled_back_once_and_the_one_before_stays(town: Town) -> None:
    town.start()
    town.live(240, lambda: town.state() is State.LIVE)
    town.behaves |= {"clinic-1": Behaviour(failed=0.2), "clinic-2": Behaviour(failed=0.2)}
    assert town.live(60, rolled_back(town)) <= IN_TIME_S
    town.live(30)
    assert (town.state(1), town.registry.rollouts.current("clinic")) == (State.LIVE, None)
    assert [step.to_state for step in town.registry.history("clinic-1")][-2:] == [State.RETIRED, State.LIVE]


def test_a_canary_that_too_few_ask_is_not_promoted_and_goes_back_to_approved(town: Town) -> None:
    """Ten requests a second at 5 % make 45 in the 90 s a step may last; 300 are needed."""
    town.per_s = 10
    town.start()
    town.live(85)
    rollout = town.registry.rollouts.current("clinic")
    assert rollout is not None
    assert (rollout.outcome, rollout.step) == ("INCONCLUSIVE", 0)
    assert [outcome for (outcome,), value in town.series("rollout_outcome").items() if value] == ["INCONCLUSIVE"]
    town.live(20)
    assert {ending: count for ending, count in town.series("rollouts_ended").items() if count} == {("withdrawn", "INCONCLUSIVE"): 1}
    assert (town.state(), town.state(1), town.share()) == (State.APPROVED, State.LIVE, 0)
    assert "no PASS within 90 s" in town.registry.history("clinic-2")[-1].reason


def test_no_data_is_never_a_pass(town: Town) -> None:
    town.start()
    town.workers, town.per_s = {}, 0
    town.live(30, lambda: town.state() is not State.CANARY)
    assert town.state() is State.APPROVED
    assert "no gateway worker has told its counts" in town.registry.history("clinic-2")[-1].reason


def test_rules_that_must_be_checked_and_are_not_let_nobody_through(tmp_path: Path) -> None:
    town = Town(tmp_path, section=SECTION.model_copy(update={"require_rule_checks": True}), checked=0.0)
    town.start()
    town.live(60)
    rollout = town.registry.rollouts.current("clinic")
    assert rollout is not None
    assert (rollout.outcome, rollout.reason) == ("INCONCLUSIVE", "broken rules: 0 and 0 answers were checked, and both need some")
    town.registry.close()


def test_a_canary_whose_slot_has_failed_is_rolled_back(town: Town) -> None:
    town.start()
    town.slot("clinic-2", SlotState.FAILED)
    assert town.live(60, rolled_back(town)) <= IN_TIME_S


def test_nothing_goes_back_to_a_champion_that_is_sick_until_it_is_well_again(town: Town) -> None:
    town.start()
    town.behaves["clinic-2"] = Behaviour(failed=0.2)
    town.slot("clinic-1", SlotState.FAILED)
    town.live(60)
    rollout = town.registry.rollouts.current("clinic")
    assert rollout is not None
    assert (town.state(), rollout.outcome) == (State.CANARY, "ERROR")
    assert "the release to go back to is not ready" in rollout.reason
    assert town.series("rollout_stuck") == {(): 1}
    town.slot("clinic-1", SlotState.READY)
    town.live(60, lambda: town.state() is not State.CANARY)
    assert (town.state(), town.series("rollout_stuck")) == (State.ROLLED_BACK, {})


def test_a_rollback_target_that_is_sick_keeps_the_live_release_and_is_taken_when_it_is_well(town: Town) -> None:
    town.start()
    town.live(240, lambda: town.state() is State.LIVE)
    town.slot("clinic-1", SlotState.FAILED)
    town.behaves["clinic-2"] = Behaviour(failed=0.2)
    town.live(60)
    assert (town.state(), town.series("rollout_stuck")) == (State.LIVE, {(): 1})
    town.slot("clinic-1", SlotState.READY)
    assert town.live(20, rolled_back(town)) <= SECTION.interval_s + 1


def test_a_dead_controller_means_champion_and_the_next_one_begins_the_step_anew(town: Town) -> None:
    town.start()
    town.live(8)
    assert town.share() == pytest.approx(0.05, abs=0.015)
    assert (town.series("rollout_step"), town.series("rollout_share_ratio")) == ({(): 1}, {(): 0.05})
    assert 5 < town.series("rollout_lease_seconds")[()] <= 10
    town.controller = None
    town.live(10.5)
    assert (town.share(), town.series("rollout_lease_seconds")) == (0, {(): 0})
    town.controller = town.new_controller()
    town.live(1)
    rollout = town.registry.rollouts.current("clinic")
    assert rollout is not None
    assert (town.share() > 0, rollout.step) == (True, 0)
    town.live(240, lambda: town.state() is not State.CANARY)
    assert town.state() is State.LIVE


def test_a_lease_that_seems_too_long_because_a_clock_was_put_back_is_renewed_all_the_same(town: Town) -> None:
    town.start()
    town.registry.rollouts.renew(town.registry.rollouts.current("clinic"), town.clock() + timedelta(hours=1))
    town.live(15)
    assert town.share() == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("jump_s", [61, -61, 86_400, -86_400])
@pytest.mark.parametrize("whose", ["controller", "gateway", "teller"])
def test_clocks_that_differ_or_jump_neither_end_a_rollout_nor_keep_a_share(town: Town, whose: str, jump_s: float) -> None:
    """The controller, the gateway that believes its lease and the gateway that tells its counts may be three machines."""
    town.per_s = 20
    town.start()
    town.live(4)
    town.jump(whose, jump_s)
    town.live(7)
    assert town.share() == pytest.approx(0.05, abs=0.015)
    assert town.registry.rollouts.current("clinic").errors == 0
    town.controller = None
    town.live(10.5)
    assert town.share() == 0


def test_a_registry_that_is_gone_ends_the_lease_and_stops_nothing_else(town: Town) -> None:
    town.start()
    town.live(20)
    file, aside = town.folder / "registry.db", town.folder / "aside"
    town.registry.close()
    aside.mkdir()
    for each in list(town.folder.glob("registry.db*")):
        shutil.move(each, aside)
    assert not file.exists()
    town.live(12)
    assert town.share() == 0
    for each in aside.iterdir():
        shutil.move(each, town.folder)
    town.live(240, lambda: town.state() is not State.CANARY)
    assert town.state() is State.LIVE


def test_a_paused_rollout_keeps_its_share_and_is_still_rolled_back_when_it_is_bad(town: Town) -> None:
    town.start()
    town.registry.rollouts.pause("clinic")
    town.live(95)
    rollout = town.registry.rollouts.current("clinic")
    assert rollout is not None
    assert (rollout.step, rollout.status, town.share() > 0) == (0, RolloutStatus.PAUSED, True)
    town.behaves["clinic-2"] = Behaviour(failed=0.3)
    assert town.live(60, rolled_back(town)) <= IN_TIME_S


def test_two_controllers_take_no_step_twice(town: Town) -> None:
    town.start()
    other = town.new_controller()
    for _ in range(16):
        town.live(5)
        other.tick_or_stay()
    rollout = town.registry.rollouts.newest("clinic-2")
    assert rollout is not None
    assert [verdict.share for verdict in rollout.verdicts][:2] == [0.05, 0.25]
    assert [step.to_state for step in town.registry.history("clinic-2")].count(State.LIVE) == 1


def test_requests_from_before_the_rollout_are_not_held_against_the_champion(town: Town) -> None:
    """A worker that has been counting for weeks is heard of for the first time when the rollout begins."""
    for worker in town.workers.values():
        for _ in range(5000):
            worker.of("clinic-1").finished("server_error", 0.01)
    town.behaves["clinic-2"] = Behaviour(failed=0.3)
    town.start()
    assert town.live(60, rolled_back(town)) <= IN_TIME_S


def test_a_worker_that_is_restarted_takes_nothing_from_the_counts(town: Town) -> None:
    town.start()
    town.live(15)
    town.workers = {"two": town.workers["two"], "three": Tallies()}
    took_s = town.live(240, lambda: town.state() is State.LIVE)
    assert (town.state(), took_s < 100) == (State.LIVE, True)


def test_a_shadow_ends_when_its_time_is_over(town: Town) -> None:
    rollout = town.start()
    town.registry.rollouts.abort("clinic", "ann", "later")
    town.registry.rollouts.shadow(rollout.release_id, town.clock(), "ann")
    town.live(1)
    assert town.registry.snapshot().shadows == {}
