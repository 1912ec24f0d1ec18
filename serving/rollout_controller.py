"""Takes promotions through their steps: renews the lease, looks at the counts, judges, decides, writes it down. One small loop.

It needs the registry and the gateway's own counts; Prefect and Prometheus may be away. When it dies its leases end, and the champion has
all the traffic; the next controller starts the step at hand from its beginning. Two of them cannot act on the same look: each
change names the fence it saw. Next: `rollout_judging.py` and `rollout_decision.py`, what is decided here; `server.py`, which runs it.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple, assert_never

from evaluation.records import Outcome
from serving.errors import RegistryError, TransitionRefused
from serving.heartbeats import Heartbeats
from serving.records import LEASE_S, Rollout, RolloutStatus, SlotState, Snapshot, Tally
from serving.registry import Registry, utc_now
from serving.rollout_counts import Counts
from serving.rollout_decision import Action, Decision, Standing, decide
from serving.rollout_judging import Condition, Judgement, judge_windows, judgement_of
from serving.rollout_section import RolloutSection

_log = logging.getLogger(__name__)

ACTOR = "rollout controller"
TICK_S = 0.25
_FRESH_S = 5.0
_RENEW_BELOW = 2 / 3


class Window(NamedTuple):
    """What both releases have shown in one time."""

    canary: Counts
    champion: Counts


class RolloutController:
    """Looks after every rollout of one registry. `monotonic` measures ages, `now` says when a lease ends.

    `seen` is called after each tick that the registry let through, `looked` after each look at a rollout.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        lease_s: float = LEASE_S,
        seen: Callable[[], None] = lambda: None,
        looked: Callable[[Rollout, Judgement, Decision], None] = lambda *_: None,
    ) -> None:
        self._registry, self._now, self._monotonic, self._lease_s = registry, now, monotonic, lease_s
        self._seen, self._looked = seen, looked
        self._courses: dict[int, _Course] = {}
        self._heard, self._counts_silent_s = Heartbeats(monotonic), math.inf
        self._blind = False

    async def run(self, every_s: float = TICK_S) -> None:
        """Tend until cancelled."""
        while True:
            await asyncio.to_thread(self.tick_or_stay)
            await asyncio.sleep(every_s)

    def tick_or_stay(self) -> None:
        """`tick`; without a registry nothing is done, and the leases end by themselves."""
        try:
            self.tick()
            self._blind = False
            self._seen()
        except RegistryError as error:
            if not self._blind:
                _log.error("rollouts stand still: %s", error)
            self._blind = True

    def tick(self) -> None:
        """Tend every rollout once.

        Raises:
            RegistryError: the registry cannot be read or written.
        """
        snapshot = self._registry.snapshot()
        self._end_shadows(snapshot)
        self._courses = {each.id: self._courses[each.id] for each in snapshot.rollouts if each.id in self._courses}
        tallies = self._registry.rollouts.tallies() if snapshot.rollouts else ()
        silent = [self._heard.silent_s(f"{each.worker} {each.release_id}", each.at) for each in tallies]
        self._counts_silent_s = min(silent, default=math.inf)
        for rollout in snapshot.rollouts:
            try:
                self._tend(rollout, snapshot, tallies)
            except TransitionRefused as error:
                _log.info("somebody else was faster: %s", error)

    def _end_shadows(self, snapshot: Snapshot) -> None:
        for public_name, shadow in snapshot.shadows.items():
            if shadow.until <= self._now():
                self._registry.rollouts.end_shadow(public_name)

    def _tend(self, rollout: Rollout, snapshot: Snapshot, tallies: tuple[Tally, ...]) -> None:
        rollout, section = self._leased(rollout), _section(snapshot, rollout)
        course = self._courses.get(rollout.id)
        if course is None or course.stage != _stage(rollout):
            course = self._courses[rollout.id] = _Course(rollout, self._monotonic(), section)
        course.hear(tallies)
        if not course.is_due(self._monotonic(), section.interval_s):
            return
        judgement = self._judgement(rollout, course, section, snapshot)
        standing = Standing(
            step=rollout.step,
            failures=rollout.failures,
            errors=rollout.errors,
            age_s=self._monotonic() - course.begun_s,
            live=rollout.status is RolloutStatus.WATCHING,
            paused=rollout.status is RolloutStatus.PAUSED,
            back_ready=_slot(snapshot, rollout.champion_id) is None,
        )
        decision = decide(section, standing, judgement)
        self._looked(rollout, judgement, decision)
        self._act(rollout, decision, judgement, course)

    def _leased(self, rollout: Rollout) -> Rollout:
        left_s = (rollout.lease_until - self._now()).total_seconds()
        # More than a whole lease is left where this clock was put back: no gateway believes that long.
        if rollout.status is RolloutStatus.WATCHING or self._lease_s * _RENEW_BELOW < left_s <= self._lease_s:
            return rollout
        return self._registry.rollouts.renew(rollout, self._lease())

    def _lease(self) -> datetime:
        return self._now() + timedelta(seconds=self._lease_s)

    def _judgement(self, rollout: Rollout, course: "_Course", section: RolloutSection, snapshot: Snapshot) -> Judgement:
        """How the slots are; else what was counted in the whole step, and of late."""
        troubles = self._troubles(rollout, snapshot)
        if troubles:
            return judgement_of(*troubles)
        least = section.steps[min(rollout.step, len(section.steps) - 1)].min_requests
        return judge_windows(course.look(), section, least)

    def _troubles(self, rollout: Rollout, snapshot: Snapshot) -> list[Condition]:
        found = []
        if (fault := _slot(snapshot, rollout.release_id)) is not None:
            found.append(Condition("slot", Outcome.FAIL, f"the slot of {rollout.release_id} {fault}"))
        elif rollout.status is not RolloutStatus.WATCHING and (fault := _slot(snapshot, rollout.champion_id)) is not None:
            found.append(Condition("slot", Outcome.ERROR, f"nothing to compare with: the slot of {rollout.champion_id} {fault}"))
        if self._counts_silent_s > _FRESH_S:
            found.append(Condition("counts", Outcome.ERROR, f"no gateway worker has told its counts for {_FRESH_S:g} s"))
        failed = [each for each in found if each.outcome is Outcome.FAIL]
        return failed or found

    def _act(self, rollout: Rollout, decision: Decision, judgement: Judgement, course: "_Course") -> None:
        book, outcome, reason = self._registry.rollouts, judgement.outcome.value, decision.reason
        if decision.action is not Action.HOLD:
            _log.info("rollout of %s at %g %%: %s, %s: %s", rollout.release_id, rollout.share * 100, outcome, decision.action, reason)
        match decision.action:
            case Action.HOLD:
                book.note(rollout, failures=decision.failures, errors=decision.errors, outcome=outcome, reason=reason)
            case Action.ADVANCE:
                book.advance(rollout, reason, self._lease())
            case Action.GO_LIVE:
                book.go_live(rollout, reason, course.window.champion.spelled())
            case Action.ROLL_BACK:
                book.roll_back(rollout, ACTOR, outcome, reason)
            case Action.WITHDRAW:
                book.withdraw(rollout, ACTOR, outcome, reason)
            case Action.FINISH:
                book.finish(rollout, outcome, reason)
            case _:
                assert_never(decision.action)


class _Course:
    """What has been counted in one step of one rollout, since this controller has been looking at it."""

    def __init__(self, rollout: Rollout, begun_s: float, section: RolloutSection) -> None:
        self.stage, self.begun_s = _stage(rollout), begun_s
        self.next_look_s = begun_s + section.interval_s
        self._ids = (rollout.release_id, rollout.champion_id)
        self._frozen = Counts.read(rollout.baseline) if rollout.baseline is not None else None
        self._first: dict[tuple[str, str], Counts] = {}
        self._last: dict[tuple[str, str], Counts] = {}
        self._looks: deque[Window] = deque([Window(Counts(), Counts())], maxlen=section.threshold)

    def hear(self, tallies: tuple[Tally, ...]) -> None:
        """Take in what the workers say. What one counted before it was first heard of in this step does not belong to the step."""
        for tally in tallies:
            key, counts = (tally.worker, tally.release_id), Counts.read(tally.counts)
            self._first.setdefault(key, counts)
            self._last[key] = counts

    def is_due(self, now_s: float, interval_s: float) -> bool:
        """Whether it is time to look. One late look moves none of the next, or a rollback would be as late as all of them together."""
        late_s = now_s - self.next_look_s
        if late_s < 0:
            return False
        # After a long pause the next look needs an interval of its own: it must not FAIL twice over the same requests.
        self.next_look_s = now_s + interval_s - (late_s if late_s < interval_s / 2 else 0)
        return True

    @property
    def window(self) -> Window:
        """The whole step; while live, the champion's part is what it showed in the last step."""
        canary, champion = (self._since_first(release_id) for release_id in self._ids)
        return Window(canary, self._frozen or champion)

    def look(self) -> tuple[Window, ...]:
        """The whole step, the last `threshold` intervals of it, and the last one."""
        now, looks = self.window, (self._looks[0], self._looks[-1])
        self._looks.append(now)
        return (now, *(self._between(then, now) for then in looks))

    def _between(self, then: Window, now: Window) -> Window:
        return Window(now.canary - then.canary, self._frozen or now.champion - then.champion)

    def _since_first(self, release_id: str) -> Counts:
        parts = [self._last[key] - self._first[key] for key in self._first if key[1] == release_id]
        return sum(parts, Counts())


def _stage(rollout: Rollout) -> tuple[int, bool]:
    return rollout.step, rollout.status is RolloutStatus.WATCHING


def _section(snapshot: Snapshot, rollout: Rollout) -> RolloutSection:
    return next(each for each in snapshot.releases if each.id == rollout.release_id).serving.rollout


def _slot(snapshot: Snapshot, release_id: str) -> str | None:
    """What is wrong with a release's slot; None when it is ready."""
    slot = next((each for each in snapshot.slots if each.release_id == release_id), None)
    if slot is None:
        return "does not run"
    return None if slot.state is SlotState.READY else f"is {slot.state}: {slot.reason}"
