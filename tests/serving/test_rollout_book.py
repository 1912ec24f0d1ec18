"""The steps of a rollout as transactions, over both databases: each is taken once, by whom it was meant for, or not at all."""

from collections.abc import Callable, Iterator

import pytest

from serving.errors import ChampionChanged, EvidenceMismatch, NoChampion, TransitionRefused
from serving.lifecycle import State
from serving.records import Rollout, RolloutStatus
from serving.registry import Registry
from serving.rollout_section import RolloutSection
from tests.fakes_serving import EVIDENCE, Clock, approved, canary, candidate, champion, release_in


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    with Registry(registry_url, now=Clock()) as opened:
        yield opened


def states(registry: Registry) -> dict[str, str]:
    return {release.id: release.state.value for release in registry.releases()}


def live(registry: Registry) -> Rollout:
    rollout = canary(registry)
    return registry.rollouts.go_live(registry.rollouts.advance(rollout, "good", registry.now()), "still good", {"answered": 7})


def test_a_start_gives_the_first_share_and_leaves_the_champion_where_it_is(registry: Registry) -> None:
    rollout = canary(registry)
    assert (rollout.share, rollout.step, rollout.status) == (0.05, 0, RolloutStatus.RUNNING)
    assert states(registry) == {"clinic-1": "live", "clinic-2": "canary"}
    snapshot = registry.snapshot()
    assert (snapshot.canaries["clinic"].share, snapshot.canaries["clinic"].lease_until) == (0.05, rollout.lease_until)
    assert snapshot.rollouts == (rollout,)


def test_every_step_is_written_down_with_its_verdict(registry: Registry) -> None:
    rollout = live(registry)
    assert [(verdict.share, verdict.outcome, verdict.reason) for verdict in rollout.verdicts] == [
        (0.05, "PASS", "good"),
        (0.25, "PASS", "still good"),
    ]
    assert (rollout.status, rollout.share, rollout.baseline) == (RolloutStatus.WATCHING, 1.0, {"answered": 7})
    assert states(registry) == {"clinic-1": "retired", "clinic-2": "live"}
    assert registry.snapshot().canaries == {}


BACK = {"clinic-1": "live", "clinic-2": "rolled_back"}
AGAIN = {"clinic-1": "live", "clinic-2": "approved"}
ENDS: dict[str, tuple[Callable[[Registry], Rollout], Callable[[Registry, Rollout], object], dict[str, str]]] = {
    "a canary is rolled back": (canary, lambda r, x: r.rollouts.roll_back(x, "c", "FAIL", "bad"), BACK),
    "a canary is withdrawn": (canary, lambda r, x: r.rollouts.withdraw(x, "c", "ERROR", "?"), AGAIN),
    "a person aborts": (canary, lambda r, x: r.rollouts.abort("clinic", "ann", "no"), AGAIN),
    "a person rolls a canary back": (canary, lambda r, x: r.rollback("clinic", "ann", "no"), BACK),
    "a live one is rolled back": (live, lambda r, x: r.rollouts.roll_back(x, "c", "FAIL", "bad"), BACK),
    "a person rolls a live one back": (live, lambda r, x: r.rollback("clinic", "ann", "no"), BACK),
    "the watch is over": (live, lambda r, x: r.rollouts.finish(x, "PASS", "good"), {"clinic-1": "retired", "clinic-2": "live"}),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_end_leaves_one_champion_no_rollout_and_a_whole_history(registry: Registry, end: str) -> None:
    make, act, expected = ENDS[end]
    rollout = make(registry)
    act(registry, rollout)
    assert states(registry) == expected
    assert (registry.rollouts.current("clinic"), registry.snapshot().canaries) == (None, {})
    assert registry.verify().faults == ()


def test_a_release_that_was_withdrawn_may_be_promoted_again_on_the_same_approval(registry: Registry) -> None:
    canary(registry)
    registry.rollouts.abort("clinic", "ann", "not today")
    again = registry.rollouts.start("clinic-2", EVIDENCE, "bob", registry.now())
    assert (again.step, states(registry)["clinic-2"]) == (0, "canary")


def test_of_two_changes_that_saw_the_same_rollout_the_second_is_refused(registry: Registry) -> None:
    rollout = canary(registry)
    registry.rollouts.note(rollout, failures=1, errors=0, outcome="FAIL", reason="bad")
    before = registry.history("clinic-2")
    for change in (
        lambda: registry.rollouts.advance(rollout, "good", registry.now()),
        lambda: registry.rollouts.roll_back(rollout, "c", "FAIL", "bad"),
        lambda: registry.rollouts.renew(rollout, registry.now()),
        lambda: registry.rollouts.withdraw(rollout, "c", "ERROR", "?"),
    ):
        with pytest.raises(TransitionRefused, match="was changed a moment ago"):
            change()
    assert registry.history("clinic-2") == before


@pytest.mark.parametrize("state", sorted(set(State) - {State.APPROVED}))
def test_only_an_approved_release_becomes_a_canary(registry: Registry, state: State) -> None:
    release = release_in(registry, state)
    with pytest.raises(TransitionRefused):
        registry.rollouts.start(release.id, EVIDENCE, "bob", registry.now())
    assert registry.release(release.id).state is state


def test_an_approval_for_other_evidence_starts_nothing(registry: Registry) -> None:
    champion(registry)
    release = approved(registry, digest="b" * 64)
    with pytest.raises(EvidenceMismatch):
        registry.rollouts.start(release.id, "f" * 64, "bob", registry.now())
    assert states(registry)[release.id] == "approved"


def test_a_release_judged_against_another_champion_starts_nothing(registry: Registry) -> None:
    champion(registry)
    fast, slow = approved(registry, digest="b" * 64), approved(registry, digest="c" * 64)
    registry.promote(fast.id, EVIDENCE, "bob")
    with pytest.raises(ChampionChanged):
        registry.rollouts.start(slow.id, EVIDENCE, "bob", registry.now())


def test_nobody_is_promoted_beside_a_canary_and_anybody_while_a_release_is_only_watched(registry: Registry) -> None:
    champion(registry)
    other = approved(registry, digest="c" * 64)
    rollout = canary(registry)
    for attempt in (registry.promote, lambda *a: registry.rollouts.start(*a, registry.now())):
        with pytest.raises(TransitionRefused, match="has to wait"):
            attempt(other.id, EVIDENCE, "bob")
    registry.rollouts.roll_back(rollout, "c", "FAIL", "bad")
    assert registry.promote(other.id, EVIDENCE, "bob").state is State.LIVE


def test_a_promotion_ends_the_watch_over_the_release_before(registry: Registry) -> None:
    rollout = live(registry)
    third = approved(registry, digest="d" * 64)
    registry.promote(third.id, EVIDENCE, "bob")
    watched = registry.rollouts.newest(rollout.release_id)
    assert watched is not None
    assert (watched.status, registry.rollouts.current("clinic")) == (RolloutStatus.DONE, None)


def test_a_recipe_without_steps_has_no_canary(registry: Registry) -> None:
    champion(registry)
    release = approved(registry, digest="b" * 64, rollout=RolloutSection())
    with pytest.raises(TransitionRefused, match=r"its recipe has no rollout\.steps"):
        registry.rollouts.start(release.id, EVIDENCE, "bob", registry.now())


@pytest.mark.parametrize("act", ["pause", "resume", "abort"])
def test_nothing_can_be_done_to_a_rollout_that_is_not_there(registry: Registry, act: str) -> None:
    champion(registry)
    arguments = ("clinic", "ann", "no") if act == "abort" else ("clinic",)
    with pytest.raises(TransitionRefused, match="no rollout goes on"):
        getattr(registry.rollouts, act)(*arguments)


def test_a_rollout_is_paused_and_goes_on_where_it_was(registry: Registry) -> None:
    canary(registry)
    paused = registry.rollouts.pause("clinic")
    with pytest.raises(TransitionRefused, match="is paused"):
        registry.rollouts.pause("clinic")
    resumed = registry.rollouts.resume("clinic")
    assert (paused.status, resumed.status, resumed.step) == (RolloutStatus.PAUSED, RolloutStatus.RUNNING, 0)


def test_a_live_release_cannot_be_aborted_any_more(registry: Registry) -> None:
    live(registry)
    with pytest.raises(TransitionRefused, match="is watching"):
        registry.rollouts.abort("clinic", "ann", "too late")


def test_a_canary_is_not_approved_or_rejected(registry: Registry) -> None:
    canary(registry)
    with pytest.raises(TransitionRefused):
        registry.approve("clinic-2", EVIDENCE, "eve")
    with pytest.raises(TransitionRefused):
        registry.reject("clinic-2", "eve", "no")


def test_counts_of_an_earlier_rollout_are_forgotten_when_one_begins(registry: Registry) -> None:
    rollout = canary(registry)
    registry.rollouts.tally("w", {rollout.release_id: {"answered": 3}})
    registry.rollouts.tally("w", {rollout.release_id: {"answered": 4}})
    assert [tally.counts for tally in registry.rollouts.tallies()] == [{"answered": 4}]
    registry.rollouts.abort("clinic", "ann", "no")
    registry.rollouts.start(rollout.release_id, EVIDENCE, "bob", registry.now())
    assert registry.rollouts.tallies() == ()


def test_a_shadow_needs_another_release_in_production(registry: Registry) -> None:
    release = candidate(registry)
    with pytest.raises(NoChampion, match="no other release is in production"):
        registry.rollouts.shadow(release.id, registry.now(), "ann")
    champion(registry, digest="c" * 64)
    registry.rollouts.shadow(release.id, registry.now(), "ann")
    assert registry.snapshot().shadows["clinic"].release_id == release.id
    registry.rollouts.end_shadow("clinic")
    assert registry.snapshot().shadows == {}
