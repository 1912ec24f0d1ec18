"""The registry over a real SQLite file and a real PostgreSQL server: steps, evidence, history, idempotence."""

import sqlite3
from collections.abc import Callable, Iterator

import psycopg
import pytest

from serving.errors import ChampionChanged, EvidenceMismatch, NoChampion, TransitionRefused, UnknownRelease
from serving.lifecycle import State, next_states
from serving.records import Release
from serving.registry import Registry
from tests.fakes_serving import EVIDENCE, Clock, approved, candidate, champion, release_in

DRIVER_ERRORS = (sqlite3.Error, psycopg.Error)
Beside = Callable[[str], None]


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    opened = Registry(registry_url, now=Clock())
    yield opened
    opened.close()


# Every operation, the state it leads to, and the states it may start from. `live` is reached three ways, each from its own state.
OPERATIONS: dict[str, tuple[Callable[[Registry, Release], object], State, set[State]]] = {
    "submit": (lambda r, x: r.submit(x.id, EVIDENCE, None, "gate"), State.AWAITING_APPROVAL, {State.CANDIDATE}),
    "reject": (lambda r, x: r.reject(x.id, "ann", "no"), State.REJECTED, {State.CANDIDATE, State.AWAITING_APPROVAL, State.APPROVED}),
    "approve": (lambda r, x: r.approve(x.id, EVIDENCE, "bob"), State.APPROVED, {State.AWAITING_APPROVAL}),
    "promote": (lambda r, x: r.promote(x.id, EVIDENCE, "bob"), State.LIVE, {State.APPROVED}),
    "bootstrap": (lambda r, x: r.bootstrap(x.id, "ann"), State.LIVE, {State.CANDIDATE}),
}


@pytest.mark.parametrize("operation", list(OPERATIONS))
@pytest.mark.parametrize("state", list(State))
def test_an_operation_works_exactly_from_the_states_it_is_meant_for(registry: Registry, operation: str, state: State) -> None:
    act, leads_to, starts = OPERATIONS[operation]
    release = release_in(registry, state)
    before = registry.history(release.id)
    if state in starts:
        act(registry, release)
        assert registry.release(release.id).state is leads_to
        assert leads_to in next_states(state)
    else:
        with pytest.raises(TransitionRefused):
            act(registry, release)
        assert registry.release(release.id).state is state
        assert registry.history(release.id) == before


def test_a_release_is_numbered_within_its_public_name(registry: Registry) -> None:
    ids = [candidate(registry, name=name, digest=digest * 64).id for name, digest in [("clinic", "a"), ("clinic", "b"), ("shop", "c")]]
    assert ids == ["clinic-1", "clinic-2", "shop-1"]


def test_a_release_reads_back_as_it_was_added(registry: Registry) -> None:
    added = candidate(registry)
    assert registry.release(added.id) == added
    assert added.serving.public_name == "clinic"


@pytest.mark.parametrize("state", list(State))
def test_the_same_model_again_is_the_same_release_until_that_one_is_finished(registry: Registry, state: State) -> None:
    release = release_in(registry, state)
    again = candidate(registry, digest=release.model_digest)
    assert (again.id == release.id) == (state in {State.CANDIDATE, State.AWAITING_APPROVAL, State.APPROVED, State.CANARY, State.LIVE})


def test_promoting_retires_the_champion_and_counts_one_change(registry: Registry) -> None:
    first, second = champion(registry), approved(registry, digest="b" * 64)
    before = registry.generation()
    registry.promote(second.id, EVIDENCE, "bob")
    assert (registry.release(first.id).state, registry.champion("clinic")) == (State.RETIRED, registry.release(second.id))
    assert registry.generation() == before + 1


def test_a_rollback_puts_the_champion_before_back_and_counts_one_change(registry: Registry) -> None:
    first, second = champion(registry), approved(registry, digest="b" * 64)
    registry.promote(second.id, EVIDENCE, "bob")
    before = registry.generation()
    assert registry.rollback("clinic", "bob", "worse").id == first.id
    assert registry.release(second.id).state is State.ROLLED_BACK
    assert registry.generation() == before + 1


def test_two_rollbacks_go_back_two_champions(registry: Registry) -> None:
    first = champion(registry)
    for digest in "bc":
        registry.promote(approved(registry, digest=digest * 64).id, EVIDENCE, "bob")
    registry.rollback("clinic", "bob", "worse")
    target = registry.rollback_target("clinic")
    assert target is not None
    assert target.id == registry.rollback("clinic", "bob", "worse still").id == first.id


def test_a_rollback_without_a_champion_before_changes_nothing(registry: Registry) -> None:
    only = champion(registry)
    with pytest.raises(NoChampion, match="nothing was in production before it"):
        registry.rollback("clinic", "bob", "worse")
    assert registry.champion("clinic") == only


def test_a_rollback_of_an_unknown_name_says_that_nothing_is_in_production(registry: Registry) -> None:
    with pytest.raises(NoChampion, match="'clinik' cannot be rolled back: nothing is in production"):
        registry.rollback("clinik", "bob", "worse")


@pytest.mark.parametrize("act", ["approve", "promote"])
def test_other_evidence_than_was_submitted_is_refused(registry: Registry, act: str) -> None:
    release = candidate(registry)
    registry.submit(release.id, EVIDENCE, None, "gate")
    if act == "promote":
        registry.approve(release.id, EVIDENCE, "bob")
    state = registry.release(release.id).state
    with pytest.raises(EvidenceMismatch, match="eeeeeeeeeeee, not ffffffffffff"):
        getattr(registry, act)(release.id, "f" * 64, "bob")
    assert registry.release(release.id).state is state


def test_evidence_against_a_champion_that_is_gone_promotes_nothing(registry: Registry) -> None:
    champion(registry)
    fast, slow = approved(registry, digest="b" * 64), approved(registry, digest="c" * 64)
    registry.promote(fast.id, EVIDENCE, "bob")
    with pytest.raises(ChampionChanged, match="clinic-3 was judged against clinic-1, but clinic-2 is in production"):
        registry.promote(slow.id, EVIDENCE, "bob")
    assert registry.champion("clinic") == registry.release(fast.id)


def test_one_name_does_not_touch_the_champion_of_another(registry: Registry) -> None:
    shop = champion(registry, name="shop", digest="5" * 64)
    champion(registry)
    registry.promote(approved(registry, digest="b" * 64).id, EVIDENCE, "bob")
    assert registry.champion("shop") == shop
    assert registry.public_names() == ("clinic", "shop")
    assert [release.id for release in registry.releases("shop")] == ["shop-1"]


def test_the_history_tells_who_did_what_on_which_evidence(registry: Registry) -> None:
    champion(registry)
    second = approved(registry, digest="b" * 64)
    registry.promote(second.id, EVIDENCE, "carol")
    steps = [(step.from_state, step.to_state, step.actor, step.evidence_digest) for step in registry.history(second.id)]
    assert steps == [
        (None, State.CANDIDATE, "ann", None),
        (State.CANDIDATE, State.AWAITING_APPROVAL, "gate", EVIDENCE),
        (State.AWAITING_APPROVAL, State.APPROVED, "bob", EVIDENCE),
        (State.APPROVED, State.LIVE, "carol", EVIDENCE),
    ]


@pytest.mark.parametrize("statement", ["UPDATE transitions SET actor = 'mallory'", "DELETE FROM transitions"])
def test_the_history_cannot_be_changed_even_past_our_code(registry: Registry, beside: Beside, statement: str) -> None:
    candidate(registry)
    with pytest.raises(DRIVER_ERRORS, match="append-only"):
        beside(statement)


@pytest.mark.parametrize("state", ["live", "canary"])
def test_the_database_itself_refuses_a_second_champion_and_a_second_canary(registry: Registry, beside: Beside, state: str) -> None:
    champion(registry)
    for digest in "bc":
        candidate(registry, digest=digest * 64)
    with pytest.raises(DRIVER_ERRORS, match=r"UNIQUE|unique"):
        beside(f"UPDATE releases SET state = '{state}'")


def test_the_database_itself_refuses_a_step_in_nobodys_name(registry: Registry, beside: Beside) -> None:
    release = candidate(registry)
    with pytest.raises(DRIVER_ERRORS, match=r"CHECK|check"):
        beside(
            "INSERT INTO transitions (seq, release_id, to_state, actor, reason, at, previous_sha256, sha256) "
            f"VALUES (2, '{release.id}', 'live', '', 'x', '2030-01-01 00:00:00.000000', 'p', 's')"
        )


@pytest.mark.parametrize("actor", ["", "  "])
def test_nobody_approves_nothing(registry: Registry, actor: str) -> None:
    release = release_in(registry, State.AWAITING_APPROVAL)
    with pytest.raises(TransitionRefused, match="nobody's name"):
        registry.approve(release.id, EVIDENCE, actor)


def test_an_unknown_release_is_answered_with_the_nearest_one(registry: Registry) -> None:
    candidate(registry)
    with pytest.raises(UnknownRelease, match="no release 'clinc-1'; did you mean clinic-1"):
        registry.release("clinc-1")


def test_a_snapshot_counts_the_steps_of_each_name(registry: Registry) -> None:
    champion(registry)
    registry.promote(approved(registry, digest="b" * 64).id, EVIDENCE, "bob")
    steps = registry.snapshot().steps
    assert (steps["clinic", State.CANDIDATE], steps["clinic", State.LIVE], steps["clinic", State.RETIRED]) == (2, 2, 1)
