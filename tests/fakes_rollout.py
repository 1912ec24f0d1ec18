"""A day of traffic in a moment: a registry, a controller, gateway workers that count, and a clock that all of them are given.

Requests are sent to whom the routing table would send them, lease and all, and end as the release behaves; the dice have a seed.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from serving.errors import RegistryError
from serving.lifecycle import State
from serving.metrics_rollouts import RolloutMetrics
from serving.records import Release, Rollout, SlotState
from serving.registry import Registry
from serving.rollout_book import RolloutBook
from serving.rollout_controller import RolloutController
from serving.rollout_counts import Tallies
from serving.rollout_section import RolloutSection, RolloutStep
from serving.routing import Leases, Route, choose, routes_of
from tests.fakes_serving import Clock, canary, slot_info

TICK_S = 1.0
SLOT_KEY = SecretStr("slot")
SECTION = RolloutSection(
    steps=(RolloutStep(percent=5, min_requests=300, min_s=20), RolloutStep(percent=25, min_requests=300, min_s=20)),
    interval_s=5,
    threshold=3,
    max_step_s=90,
    watch_s=40,
)


@dataclass
class Behaviour:
    """How a release answers. Ratios 0-1; `pace` multiplies every time."""

    failed: float = 0.0
    refused: float = 0.0
    broken: float = 0.0
    pace: float = 1.0
    first_token_pace: float = 1.0


@dataclass
class Town:
    """One public name, its champion and its canary, and everybody who asks them."""

    folder: Path
    section: RolloutSection = SECTION
    per_s: float = 500.0
    checked: float = 0.2
    tick_s: float = TICK_S
    behaves: dict[str, Behaviour] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock, self.dice = Clock(), random.Random(7)
        self.began = self.clock()
        self.ahead_s: dict[str, float] = {}
        self.registry = Registry(f"sqlite:///{self.folder / 'registry.db'}", now=self.clock_of("controller"))
        self.teller = RolloutBook(self.registry._database, self.clock_of("teller"))
        self.workers = {name: Tallies() for name in ("one", "two")}
        self.page, self.found_failing = CollectorRegistry(), set[str]()
        self.metrics = RolloutMetrics(self.page, self.clock)
        self.controller: RolloutController | None = self.new_controller()
        self.leases = Leases(self.clock_of("gateway"), lambda: self.age_s)
        self.routes: dict[str, Route] = {}
        self._owed = 0.0

    def new_controller(self) -> RolloutController:
        """One that has just been started."""
        return RolloutController(self.registry, now=self.clock_of("controller"), monotonic=lambda: self.age_s, looked=self.metrics.looked)

    def clock_of(self, whose: str) -> Callable[[], datetime]:
        """The clock of one machine, which is right until `jump`."""
        return lambda: self.clock() + timedelta(seconds=self.ahead_s.get(whose, 0.0))

    def jump(self, whose: str, seconds: float) -> None:
        """Move the clock of `controller`, `gateway` (which believes leases) or `teller` (which tells counts) alone."""
        self.ahead_s[whose] = seconds

    @property
    def age_s(self) -> float:
        """Seconds since the town was made."""
        return (self.clock() - self.began).total_seconds()

    def start(self) -> Rollout:
        """A canary at its first step, both slots ready."""
        rollout = canary(self.registry, rollout=self.section)
        for release_id in (rollout.champion_id, rollout.release_id):
            self.slot(release_id, SlotState.READY)
        return rollout

    def slot(self, release_id: str, state: SlotState) -> None:
        """What the supervisor says of a slot."""
        port = 20_000 + self.registry.release(release_id).number
        self.registry.set_slot(slot_info(release_id, state, self.clock(), port=port, reason="told so"))

    def release(self, number: int = 2) -> Release:
        """clinic-1 is the champion, clinic-2 the canary."""
        return self.registry.release(f"clinic-{number}")

    def state(self, number: int = 2) -> State:
        return self.release(number).state

    def live(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Let time go by; returns the seconds after which `until` was true, or all of them."""
        began = self.age_s
        while self.age_s < began + seconds and not until():
            self.clock.forward(self.tick_s)
            self._ask()
            self._tell()
            if self.controller is not None:
                self.controller.tick_or_stay()
                self._scrape()
        return self.age_s - began

    def share(self, requests: int = 4000) -> float:
        """Part of the requests that the canary would get now."""
        route = self._route()
        chosen = [choose(route, None, self.dice.random, self.age_s)[0] for _ in range(requests)]
        return sum(1 for each in chosen if each.release_id == "clinic-2") / requests

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        """What the metrics page says now, by the labels after name and release."""
        family = next(each for each in self.page.collect() if each.name == f"tunegate_{name}")
        return {tuple(each.labels.values())[1 + ("release" in each.labels) :]: each.value for each in family.samples}

    def _scrape(self) -> None:
        self.found_failing |= {condition for (condition,), value in self.series("rollout_failing").items() if value}
        with suppress(RegistryError):
            self.metrics.follow(self.registry.snapshot())

    def _route(self) -> Route:
        with suppress(RegistryError):  # the gateway keeps its last table
            self.routes = routes_of(self.registry.snapshot(), lambda _: SLOT_KEY, self.leases)
        return self.routes["clinic"]

    def _ask(self) -> None:
        self._owed += self.per_s * self.tick_s
        route = self._route()
        asked, self._owed = int(self._owed), self._owed % 1
        for _ in range(asked):
            for backend in choose(route, None, self.dice.random, self.age_s)[:1]:
                self._answer(backend.release_id)

    def _answer(self, release_id: str) -> None:
        does, dice = self.behaves.get(release_id, Behaviour()), self.dice
        tally = self.workers[dice.choice(tuple(self.workers))].of(release_id)
        self.answered[release_id] = self.answered.get(release_id, 0) + 1
        if dice.random() < does.failed:
            tally.finished("server_error", 0.01)
            return
        if dice.random() < does.refused:
            tally.finished("client_error", 0.01)
            return
        tally.finished("ok", dice.lognormvariate(-0.7, 0.5) * does.pace)
        if dice.random() < 0.5:
            tally.first_token(dice.lognormvariate(-2.3, 0.4) * does.first_token_pace)
        if dice.random() < self.checked:
            tally.judged(broken=dice.random() < does.broken)

    def _tell(self) -> None:
        if not self.registry_is_there():
            return
        asked = {name for each in self.registry.snapshot().rollouts for name in (each.release_id, each.champion_id)}
        for worker, tallies in self.workers.items():
            counts = {release_id: counts.spelled() for release_id, counts in tallies.counts(asked).items()}
            self.teller.tally(worker, counts)

    def registry_is_there(self) -> bool:
        """Whether it can be read."""
        return (self.folder / "registry.db").exists()
