"""The history as a chain: each step carries the sha256 of itself and of the step before, so a changed past shows.

Whoever can write to the database can write a whole new chain. `verify` is therefore also given hashes that were noted elsewhere:
one that is not in the chain any more says that the past was rewritten.
Pure, but for reading rows that it is handed. Next: `releases.py`, which appends.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from serving.lifecycle import TRANSITIONS, State

START = "0" * 64
"""What stands for the step before the first."""


@dataclass(frozen=True)
class Line:
    """Everything of one step that its hash covers. `at` is naive UTC, as it is kept."""

    seq: int
    release_id: str
    from_state: str | None
    to_state: str
    actor: str
    reason: str
    evidence_digest: str | None
    at: datetime
    previous_sha256: str


@dataclass(frozen=True)
class Linked:
    """A step as it was found, with the hash it claims."""

    line: Line
    sha256: str


@dataclass(frozen=True)
class Audit:
    """What looking through a history found. `head` is the hash to note elsewhere."""

    steps: int
    head: str
    faults: tuple[str, ...]


def sha256_of(line: Line) -> str:
    """Hex sha256 of a step and, through `previous_sha256`, of all before it."""
    spelled = [
        line.seq,
        line.release_id,
        line.from_state,
        line.to_state,
        line.actor,
        line.reason,
        line.evidence_digest,
        line.at.isoformat(timespec="microseconds"),
        line.previous_sha256,
    ]
    return hashlib.sha256(json.dumps(spelled, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def audit(history: Sequence[Linked], states: Mapping[str, str], noted: Iterable[str] = ()) -> Audit:
    """Look at every step, oldest first, and at the state that each release is said to be in.

    Args:
        history: every step of the registry, in the order of `seq`.
        states: release id -> its state in the table of releases.
        noted: hashes written down earlier, elsewhere.
    """
    faults: list[str] = []
    previous, reached = START, dict[str, str]()
    for number, step in enumerate(history, start=1):
        faults += _faults_of(step, number, previous, reached.get(step.line.release_id))
        previous, reached[step.line.release_id] = step.sha256, step.line.to_state
    for release_id in sorted(states.keys() | reached.keys()):
        if states.get(release_id) != reached.get(release_id):
            faults.append(
                f"{release_id} is {states.get(release_id, 'not there')}, but its last step leads to {reached.get(release_id, 'nothing')}"
            )
    known = {START, *(step.sha256 for step in history)}
    faults += [f"the noted hash {each[:12]} is not in the history: steps were removed or rewritten" for each in noted if each not in known]
    return Audit(len(history), previous, tuple(faults))


def _faults_of(step: Linked, number: int, previous: str, state: str | None) -> list[str]:
    line, where = step.line, f"step {step.line.seq} ({step.line.release_id} → {step.line.to_state})"
    faults = []
    if line.seq != number:
        faults.append(f"{where} should have number {number}: a step is missing")
    if line.previous_sha256 != previous:
        faults.append(f"{where} does not follow the step before it")
    if sha256_of(line) != step.sha256:
        faults.append(f"{where} was changed after it was written")
    if line.from_state != state or not _exists(line.from_state, line.to_state):
        faults.append(f"{where} is no step that exists: from {line.from_state or 'nothing'}, while the release was {state or 'new'}")
    return faults


def _exists(before: str | None, after: str) -> bool:
    if before is None:
        return after == State.CANDIDATE
    try:
        return State(after) in TRANSITIONS[State(before)]
    except ValueError:
        return False
