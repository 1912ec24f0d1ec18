"""Which approved releases are told of again: those that nobody promotes, though nobody has decided so."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.client.schemas.objects import StateType

from flows.unfinished import DEATHS_IN_A_ROW, GRACE, has_died, left_behind
from serving.approval_terms import ApprovalTerms, Signer
from serving.approvals import Asked
from serving.registry import Registry
from serving.run_leases import promotion_of, this_process
from tests.fakes_serving import EVIDENCE, STEPS, Clock, canary, candidate, champion, url_in
from training.errors import TunegateError

RELEASE = "clinic-2"
GONE = replace(this_process(), pid=2**22 + 1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Iterator[Registry]:
    with Registry(url_in(tmp_path), now=clock) as made:
        yield made


def is_approved(registry: Registry) -> None:
    champion(registry)
    release = candidate(registry, digest="b" * 64, rollout=STEPS)
    asked = Asked(ApprovalTerms(promote_within_h=24))
    registry.submit(release.id, EVIDENCE, None, "ann", asked)
    registry.approvals.sign(release.id, EVIDENCE, Signer("bob"))


def ends(registry: Registry, error: BaseException) -> None:
    """Its promotion has begun, and has ended so."""
    is_approved(registry)
    with suppress(BaseException), registry.runs.held(promotion_of(RELEASE), "ann"):
        raise error


def is_told_to_end(registry: Registry) -> None:
    """Its process gets SIGTERM, and its handler ends it as Prefect's and the command line's do."""
    is_approved(registry)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt), registry.runs.held(promotion_of(RELEASE), "ann"):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 10)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def is_told_to_end_and_then_fails(registry: Registry) -> None:
    is_told_to_end(registry)
    with suppress(TunegateError), registry.runs.held(promotion_of(RELEASE), "ann"):
        raise TunegateError("no")


def dies(registry: Registry) -> None:
    is_approved(registry)
    registry.runs.begin(promotion_of(RELEASE), "ann", GONE)


def dies_twice(registry: Registry) -> None:
    dies(registry)
    registry.runs.begin(promotion_of(RELEASE), "ann", GONE)


def goes_on(registry: Registry) -> None:
    is_approved(registry)
    registry.runs.begin(promotion_of(RELEASE), "ann")


def is_withdrawn_after_its_process_died(registry: Registry) -> None:
    rollout = canary(registry)
    registry.runs.begin(promotion_of(RELEASE), "ann", GONE)
    registry.rollouts.withdraw(rollout, "controller", "INCONCLUSIVE", "too little data")


def is_live(registry: Registry) -> None:
    is_approved(registry)
    registry.promote(RELEASE, EVIDENCE, "ann")


@pytest.mark.parametrize(
    ("happened", "after", "is_left"),
    [
        (is_approved, GRACE / 2, False),
        (is_approved, GRACE, True),
        (is_approved, timedelta(hours=23), True),
        (is_approved, timedelta(hours=25), False),  # the approval holds no more
        (dies, timedelta(0), True),
        (dies, GRACE, True),
        (dies_twice, GRACE, True),
        (is_told_to_end, GRACE, True),
        (is_told_to_end_and_then_fails, GRACE, False),
        (goes_on, GRACE, False),
        (lambda registry: ends(registry, TunegateError("no")), GRACE, False),
        (lambda registry: ends(registry, KeyboardInterrupt()), GRACE, False),
        (is_withdrawn_after_its_process_died, GRACE, False),
        (is_live, GRACE, False),
    ],
    ids=[
        "new",
        "lost",
        "later",
        "expired",
        "died-at-once",
        "died",
        "died-twice",
        "told-to-end",
        "then-failed",
        "goes-on",
        "failed",
        "stopped",
        "withdrawn",
        "live",
    ],
)
def test_what_is_promoted_without_a_person(
    registry: Registry, clock: Clock, happened: Callable[[Registry], None], after: timedelta, is_left: bool
) -> None:
    happened(registry)
    clock.forward(after.total_seconds())
    assert [release.id for release in left_behind(registry, registry.now())] == [RELEASE] * is_left


CRASHED, DONE, FAILED, RUNS = StateType.CRASHED, StateType.COMPLETED, StateType.FAILED, StateType.RUNNING


@pytest.mark.parametrize(
    ("newest_first", "again"),
    [
        ([], False),
        ([DONE, CRASHED], False),
        ([FAILED, CRASHED], False),
        ([RUNS, CRASHED], False),
        ([CRASHED], True),
        ([CRASHED, DONE], True),
        ([CRASHED] * DEATHS_IN_A_ROW, True),
        ([CRASHED] * (DEATHS_IN_A_ROW + 1), False),
        ([CRASHED] * DEATHS_IN_A_ROW + [DONE], True),
    ],
)
def test_a_training_that_died_is_begun_again_unless_it_dies_again_and_again(newest_first: list[StateType], again: bool) -> None:
    assert has_died(newest_first) is again
