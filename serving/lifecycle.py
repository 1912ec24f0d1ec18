"""The life of a release, as a table: every step that exists, and nothing else.

    candidate ─submit→ awaiting_approval ─approve→ approved ─start→ canary ─every step passed→ live ─┬→ retired (replaced)
        └──────────── reject: from any of these three ──→ rejected     └──→ rolled_back              └→ rolled_back
    A canary about which nothing can be said goes back to approved. A recipe without steps goes from approved straight to live.
    A retired release goes back to live when its successor is rolled back. A candidate goes straight to live only as the
    first champion of its public name.

Pure: knows nothing of SQL, clocks or people. Next: `registry.py`, which applies these steps in transactions.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from serving.errors import TransitionRefused


class State(StrEnum):
    """Where a release is in its life."""

    CANDIDATE = "candidate"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    CANARY = "canary"
    LIVE = "live"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.CANDIDATE: frozenset({State.AWAITING_APPROVAL, State.REJECTED, State.LIVE}),
        State.AWAITING_APPROVAL: frozenset({State.APPROVED, State.REJECTED}),
        State.APPROVED: frozenset({State.CANARY, State.LIVE, State.REJECTED}),
        State.CANARY: frozenset({State.LIVE, State.APPROVED, State.ROLLED_BACK}),
        State.LIVE: frozenset({State.RETIRED, State.ROLLED_BACK}),
        State.RETIRED: frozenset({State.LIVE}),
        State.REJECTED: frozenset(),
        State.ROLLED_BACK: frozenset(),
    }
)

# A finished release no longer stands for its weights: the same weights submitted again make a new release.
FINISHED: frozenset[State] = frozenset({State.RETIRED, State.REJECTED, State.ROLLED_BACK})


def next_states(state: State) -> frozenset[State]:
    """The states one step away; empty for a terminal state."""
    return TRANSITIONS[state]


def check(release_id: str, state: State, wanted: State) -> None:
    """Let an existing step pass.

    Raises:
        TransitionRefused: there is no step from `state` to `wanted`.
    """
    if wanted in TRANSITIONS[state]:
        return
    choices = ", ".join(sorted(TRANSITIONS[state])) or "nothing: this state is final"
    raise TransitionRefused(
        f"{release_id} is {state} and cannot become {wanted}",
        why=f"from {state} a release can only become {choices}",
        do=f"look at its history: tunegate show {release_id}",
    )
