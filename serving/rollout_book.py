"""What may happen to a promotion by steps, each as one transaction of the registry.

    start → advance … → go_live → finish                      every step passed, and the watch after it
        ├→ roll_back       worse than the champion: out of production, for good
        └→ withdraw        nothing can be said, or a person stops it: back to approved, the champion has all the traffic

Knows nothing of measurements or clocks; every decision comes from outside. Next: `rollout_controller.py`, which decides.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from serving import approvals, releases, rollout_rows
from serving.database import Database
from serving.errors import NoChampion, TransitionRefused
from serving.lifecycle import State
from serving.records import Release, Rollout, RolloutStatus, Shadow, StepVerdict, Tally
from serving.releases import Step


class RolloutBook:
    """The registry's rollouts. Every method may raise `RegistryError`."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database, self._now = database, now

    def current(self, public_name: str) -> Rollout | None:
        """The rollout of this name that has not ended."""
        with self._database.read() as connection:
            return rollout_rows.open_rollout(connection, public_name)

    def newest(self, release_id: str) -> Rollout | None:
        """The last rollout of this release, ended or not."""
        with self._database.read() as connection:
            return rollout_rows.newest(connection, release_id)

    def tallies(self) -> tuple[Tally, ...]:
        """What every gateway worker has counted."""
        with self._database.read() as connection:
            return rollout_rows.counted(connection)

    def tally(self, worker: str, counts: Mapping[str, Mapping[str, Any]]) -> None:
        """A worker says what it has counted of each release since it began."""
        with self._database.write() as connection:
            for release_id, counted in counts.items():
                rollout_rows.count(connection, worker, release_id, counted, self._now())

    def start(self, release_id: str, evidence_digest: str, actor: str, lease_until: datetime) -> Rollout:
        """approved → canary, with the share of the recipe's first step.

        Raises:
            EvidenceMismatch: the digest is not the one that was approved.
            ApprovalExpired: it was approved too long ago.
            ChampionChanged: another release than the one it was judged against is in production.
            TransitionRefused: not approved, no steps, no champion to compare with, or another rollout of this name goes on.
        """
        with self._database.write() as connection:
            release = releases.one(connection, release_id)
            champion = _ready_to_start(connection, release, evidence_digest)
            approvals.check_still_holds(connection, release, self._now())
            releases.take(connection, release, Step(State.CANARY, actor, _words(release, 0), self._now(), evidence_digest))
            rollout_rows.begin(connection, _first_row(release, champion, actor, self._now(), lease_until))
            return _open(connection, release.public_name)

    def renew(self, rollout: Rollout, lease_until: datetime) -> Rollout:
        """Let the canary keep its share until then."""
        return self._changed(rollout, lease_until=lease_until)

    def note(self, rollout: Rollout, *, failures: int, errors: int, outcome: str, reason: str) -> Rollout:
        """Say what the last look has found."""
        return self._changed(rollout, failures=failures, errors=errors, outcome=outcome, reason=reason)

    def advance(self, rollout: Rollout, reason: str, lease_until: datetime) -> Rollout:
        """Give the canary the share of the next step."""
        with self._database.write() as connection:
            release = releases.one(connection, rollout.release_id)
            step = rollout.step + 1
            share = release.serving.rollout.steps[step].percent / 100
            fresh = {"step": step, "share": share, "step_at": self._now(), "failures": 0, "errors": 0, "lease_until": lease_until}
            said = {"outcome": "PASS", "reason": reason, "verdicts": self._verdicts(rollout, "PASS", reason)}
            rollout_rows.change(connection, rollout, fresh | said)
            return _open(connection, rollout.public_name)

    def go_live(self, rollout: Rollout, reason: str, baseline: Mapping[str, Any]) -> Rollout:
        """canary → live, and the champion → retired. `baseline` is what the champion has shown, for the watch that follows."""
        with self._database.write() as connection:
            champion, release = releases.one(connection, rollout.champion_id), releases.one(connection, rollout.release_id)
            releases.take(connection, champion, Step(State.RETIRED, rollout.actor, f"replaced by {release.id}", self._now()))
            releases.take(connection, release, Step(State.LIVE, rollout.actor, reason, self._now(), release.evidence_digest))
            values = {"status": RolloutStatus.WATCHING, "share": 1.0, "step_at": self._now(), "failures": 0, "errors": 0}
            said = {"outcome": "PASS", "reason": reason, "verdicts": self._verdicts(rollout, "PASS", reason)}
            rollout_rows.change(connection, rollout, {**values, **said, "baseline": dict(baseline)})
            return _open(connection, rollout.public_name)

    def finish(self, rollout: Rollout, outcome: str, reason: str) -> None:
        """The watch is over."""
        with self._database.write() as connection:
            self._end(connection, rollout, RolloutStatus.DONE, outcome, reason)

    def withdraw(self, rollout: Rollout, actor: str, outcome: str, reason: str) -> Release:
        """canary → approved: it may be promoted again."""
        with self._database.write() as connection:
            return self._withdraw(connection, rollout, actor, outcome, reason)

    def roll_back(self, rollout: Rollout, actor: str, outcome: str, reason: str) -> Release:
        """canary or live → rolled_back; a champion that it had replaced goes back to live. Returns the champion."""
        with self._database.write() as connection:
            self._end(connection, rollout, RolloutStatus.ROLLED_BACK, outcome, reason)
            release = releases.one(connection, rollout.release_id)
            releases.take(connection, release, Step(State.ROLLED_BACK, actor, reason, self._now()))
            champion = releases.one(connection, rollout.champion_id)
            if champion.state is State.LIVE:
                return champion
            return releases.take(connection, champion, Step(State.LIVE, actor, f"put back after {release.id}: {reason}", self._now()))

    def pause(self, public_name: str) -> Rollout:
        """Stay at this step until `resume`; a canary that fails is rolled back all the same.

        Raises:
            TransitionRefused: nothing is running.
        """
        return self._set(public_name, RolloutStatus.RUNNING, RolloutStatus.PAUSED)

    def resume(self, public_name: str) -> Rollout:
        """Go on from the step at which it was paused.

        Raises:
            TransitionRefused: nothing is paused.
        """
        return self._set(public_name, RolloutStatus.PAUSED, RolloutStatus.RUNNING)

    def abort(self, public_name: str, actor: str, reason: str) -> Release:
        """Stop a rollout before it is live: the champion has all the traffic, the release is approved as before.

        Raises:
            TransitionRefused: there is none, or it is live already.
        """
        with self._database.write() as connection:
            rollout = _wanted(connection, public_name, rollout_rows.CANARY_STATUSES)
            return self._withdraw(connection, rollout, actor, "ABORTED", reason)

    def shadow(self, release_id: str, until: datetime, actor: str) -> Shadow:
        """Ask this release what the champion is asked, until then; nobody gets its answers.

        Raises:
            NoChampion: nothing is in production that could be copied.
        """
        with self._database.write() as connection:
            release = releases.one(connection, release_id)
            champion = releases.champion(connection, release.public_name)
            if champion is None or champion.id == release_id:
                raise NoChampion(f"{release_id} cannot shadow {release.public_name!r}: no other release is in production")
            found = Shadow(release_id=release_id, until=until)
            rollout_rows.shadow(connection, release.public_name, found, actor)
            return found

    def end_shadow(self, public_name: str) -> None:
        """Ask nobody besides the champion any more."""
        with self._database.write() as connection:
            rollout_rows.shadow(connection, public_name, None, "")

    def _changed(self, rollout: Rollout, **values: Any) -> Rollout:
        with self._database.write() as connection:
            rollout_rows.change(connection, rollout, values)
            return _open(connection, rollout.public_name)

    def _set(self, public_name: str, before: RolloutStatus, after: RolloutStatus) -> Rollout:
        with self._database.write() as connection:
            rollout_rows.change(connection, _wanted(connection, public_name, (before,)), {"status": after, "step_at": self._now()})
            return _open(connection, public_name)

    def _withdraw(self, connection: Connection, rollout: Rollout, actor: str, outcome: str, reason: str) -> Release:
        self._end(connection, rollout, RolloutStatus.WITHDRAWN, outcome, reason)
        release = releases.one(connection, rollout.release_id)
        return releases.take(connection, release, Step(State.APPROVED, actor, reason, self._now(), release.evidence_digest))

    def _end(self, connection: Connection, rollout: Rollout, status: RolloutStatus, outcome: str, reason: str) -> None:
        verdicts = self._verdicts(rollout, outcome, reason)
        values = {"status": status, "outcome": outcome, "reason": reason, "verdicts": verdicts, "ended_at": self._now()}
        rollout_rows.change(connection, rollout, values)

    def _verdicts(self, rollout: Rollout, outcome: str, reason: str) -> list[Any]:
        verdict = StepVerdict(share=rollout.share, outcome=outcome, reason=reason, at=self._now())
        return [each.model_dump(mode="json") for each in (*rollout.verdicts, verdict)]


def _ready_to_start(connection: Connection, release: Release, evidence_digest: str) -> Release:
    """The champion that the canary will be held against."""
    releases.check_approved(release)
    releases.check_evidence(release, evidence_digest)
    champion = releases.champion(connection, release.public_name)
    releases.check_judged_against(release, champion)
    going_on = rollout_rows.open_rollout(connection, release.public_name)
    if going_on is not None:
        raise TransitionRefused(
            f"{release.id} has to wait: the rollout of {going_on.release_id} is {going_on.status}",
            why="two changes at once could not be told apart",
            do=f"tunegate rollout status {release.public_name}",
        )
    if champion is None or not release.serving.rollout.steps:
        missing = "nothing is in production to compare it with" if champion is None else "its recipe has no rollout.steps"
        raise TransitionRefused(f"{release.id} cannot be a canary: {missing}", do=f"tunegate promote {release.id}")
    return champion


def _first_row(release: Release, champion: Release, actor: str, now: datetime, lease_until: datetime) -> dict[str, Any]:
    return {
        "public_name": release.public_name,
        "release_id": release.id,
        "champion_id": champion.id,
        "status": RolloutStatus.RUNNING,
        "step": 0,
        "share": release.serving.rollout.steps[0].percent / 100,
        "lease_until": lease_until,
        "fence": 0,
        "failures": 0,
        "errors": 0,
        "reason": "",
        "verdicts": [],
        "actor": actor,
        "started_at": now,
        "step_at": now,
    }


def _words(release: Release, step: int) -> str:
    return f"gets {release.serving.rollout.steps[step].percent:g} % of the traffic"


def _wanted(connection: Connection, public_name: str, statuses: Sequence[RolloutStatus]) -> Rollout:
    """What a person's word is about, read where it is changed: the controller may have written a moment ago, and that refuses nobody."""
    rollout = rollout_rows.open_rollout(connection, public_name)
    if rollout is None or rollout.status not in statuses:
        found = "no rollout goes on" if rollout is None else f"the rollout of {rollout.release_id} is {rollout.status}"
        raise TransitionRefused(f"{public_name!r}: {found}", do=f"tunegate rollout status {public_name}")
    return rollout


def _open(connection: Connection, public_name: str) -> Rollout:
    rollout = rollout_rows.open_rollout(connection, public_name)
    assert rollout is not None
    return rollout
