"""The table of a release's life, over every pair of states.

Expected steps, from the design: candidate → awaiting_approval → approved → canary → live → retired | rolled_back, reject from the three
states before canary, candidate → live for the first champion, approved → live without steps, canary → rolled_back when it is worse and
→ approved when nothing can be said, retired → live when the successor is rolled back: 13 of 64 pairs.
"""

from itertools import product

import pytest

from serving.errors import TransitionRefused
from serving.lifecycle import FINISHED, TRANSITIONS, State, check, next_states

STEPS = {
    ("candidate", "awaiting_approval"),
    ("candidate", "rejected"),
    ("candidate", "live"),
    ("awaiting_approval", "approved"),
    ("awaiting_approval", "rejected"),
    ("approved", "canary"),
    ("approved", "live"),
    ("approved", "rejected"),
    ("canary", "live"),
    ("canary", "approved"),
    ("canary", "rolled_back"),
    ("live", "retired"),
    ("live", "rolled_back"),
    ("retired", "live"),
}


def allowed(before: State, after: State) -> bool:
    try:
        check("clinic-1", before, after)
    except TransitionRefused:
        return False
    return True


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_a_step_is_allowed_exactly_when_the_design_names_it(before: State, after: State) -> None:
    assert allowed(before, after) == ((before.value, after.value) in STEPS)


def test_the_table_covers_every_state() -> None:
    assert set(TRANSITIONS) == set(State)
    assert len(State) == 8


@pytest.mark.parametrize("state", [State.REJECTED, State.ROLLED_BACK])
def test_nothing_follows_a_final_state(state: State) -> None:
    assert next_states(state) == frozenset()


@pytest.mark.parametrize("state", list(State))
def test_a_finished_release_needs_no_more_decisions_by_a_person(state: State) -> None:
    assert (state in FINISHED) == (state.value in {"retired", "rejected", "rolled_back"})


def test_a_refusal_names_the_release_the_states_and_the_choices() -> None:
    with pytest.raises(TransitionRefused) as refused:
        check("clinic-4", State.AWAITING_APPROVAL, State.LIVE)
    assert "clinic-4 is awaiting_approval and cannot become live" in str(refused.value)
    assert "approved, rejected" in str(refused.value)
