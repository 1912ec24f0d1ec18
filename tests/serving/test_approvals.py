"""Who may approve what, for how long it holds, and that none of it can be changed afterwards. Over both databases."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving.approval_terms import ApprovalTerms, Signer, is_over, objection
from serving.approvals import Asked
from serving.errors import ApprovalExpired, ApproverRefused, EvidenceMismatch, TransitionRefused
from serving.lifecycle import State
from serving.records import Release
from serving.registry import Registry
from tests.fakes_serving import EVIDENCE, Clock, candidate, champion

TWO = ApprovalTerms(approvers=2, requester_may_approve=False, approve_within_h=24, promote_within_h=2)
ONE_HOUR = 3600.0
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(registry_url: str, clock: Clock) -> Iterator[Registry]:
    with Registry(registry_url, now=clock) as made:
        yield made


def waiting(registry: Registry, terms: ApprovalTerms = TWO) -> Release:
    release = candidate(registry)
    return registry.submit(release.id, EVIDENCE, None, "gate", Asked(terms, "f" * 64, Path("/recipes/demo.yaml")))


def sign(registry: Registry, release: Release, name: str, account: str = "") -> Release:
    return registry.approvals.sign(release.id, EVIDENCE, Signer(name, account), "looks right")


def approved(registry: Registry, terms: ApprovalTerms = TWO) -> Release:
    release = waiting(registry, terms)
    sign(registry, release, "bob", "key:key-1")
    return sign(registry, release, "eve", "key:key-2")


@pytest.mark.parametrize(
    ("earlier", "signer", "said"),
    [
        ([], Signer("bob"), None),
        ([], Signer("ann"), "asked for it"),
        ([], Signer(" ANN "), "asked for it"),
        ([], Signer("bob", "os:ann@box"), "asked for it"),
        ([], Signer("bob", "os:bob@box"), None),
        ([Signer("bob")], Signer("Bob"), "has signed it already"),
        ([Signer("bob", "os:bob@box")], Signer("eve", "os:bob@box"), "through the same account"),
        ([Signer("bob", "os:bob@box")], Signer("eve", "os:eve@box"), None),
        ([Signer("bob", "key:1")], Signer("eve", "key:1"), "through the same account"),
        ([Signer("bob")], Signer("eve"), None),
    ],
)
def test_whose_signature_counts(earlier: list[Signer], signer: Signer, said: str | None) -> None:
    found = objection(TWO, "ann", earlier, signer)
    assert (found is None) == (said is None)
    assert said is None or (found is not None and said in found)


@pytest.mark.parametrize(("passed_h", "over"), [(0, False), (2, False), (2.01, True), (-0.05, False), (-0.2, True), (-9000, True)])
def test_an_age_is_over_after_its_hours_and_when_the_clock_was_put_back(passed_h: float, over: bool) -> None:
    """Five minutes (0.083 h) of slip are forgiven."""
    assert is_over(NOW, 2, NOW + timedelta(hours=passed_h)) is over


def test_with_the_last_signature_that_is_needed_it_is_approved(registry: Registry) -> None:
    release = waiting(registry)
    assert sign(registry, release, "bob").state is State.AWAITING_APPROVAL
    assert registry.approvals.standing(release.id).missing == 1
    assert sign(registry, release, "eve").state is State.APPROVED
    found = registry.approvals.standing(release.id)
    assert [each.name for each in found.signatures] == ["bob", "eve"]
    assert (found.missing, found.recipe_digest, found.recipe_path) == (0, "f" * 64, Path("/recipes/demo.yaml"))


def test_a_refused_signature_leaves_nothing_behind(registry: Registry) -> None:
    release = waiting(registry)
    before = registry.approvals.lines()
    for signer in (Signer("ann"), Signer("bob", "os:ann@box"), Signer(" ")):
        with pytest.raises(TransitionRefused):
            registry.approvals.sign(release.id, EVIDENCE, signer)
    with pytest.raises(EvidenceMismatch):
        registry.approvals.sign(release.id, "0" * 64, Signer("bob"))
    assert registry.approvals.lines() == before


def test_a_release_that_has_waited_for_too_long_cannot_be_approved(registry: Registry, clock: Clock) -> None:
    release = waiting(registry)
    clock.forward(24 * ONE_HOUR + 1)
    with pytest.raises(ApprovalExpired, match="has waited since 2030-01-01 00:00 UTC; its recipe allows 24 hours"):
        sign(registry, release, "bob")


@pytest.mark.parametrize("seconds", [2 * ONE_HOUR + 1, -ONE_HOUR])
def test_an_approval_that_has_waited_for_too_long_promotes_nothing(registry: Registry, clock: Clock, seconds: float) -> None:
    release = approved(registry)
    clock.forward(seconds)
    with pytest.raises(ApprovalExpired, match="was approved at"):
        registry.promote(release.id, EVIDENCE, "bob")
    with pytest.raises(ApprovalExpired):
        registry.approvals.check_still_holds(release.id)
    assert registry.release(release.id).state is State.APPROVED


def test_an_expired_approval_starts_no_canary(registry: Registry, clock: Clock) -> None:
    champion(registry, digest="c" * 64)
    release = approved(registry)
    clock.forward(2 * ONE_HOUR + 1)
    with pytest.raises(ApprovalExpired):
        registry.rollouts.start(release.id, EVIDENCE, "bob", clock())


def test_an_approval_within_its_time_promotes(registry: Registry, clock: Clock) -> None:
    release = approved(registry)
    clock.forward(2 * ONE_HOUR - 1)
    assert registry.promote(release.id, EVIDENCE, "bob").state is State.LIVE


def test_an_emergency_needs_one_person_and_a_reason_and_both_are_kept(registry: Registry, clock: Clock) -> None:
    release = waiting(registry)
    clock.forward(48 * ONE_HOUR)
    with pytest.raises(ApproverRefused, match="at least 10 characters"):
        registry.approvals.override(release.id, EVIDENCE, Signer("ann"), "now!")
    with pytest.raises(EvidenceMismatch):
        registry.approvals.override(release.id, "0" * 64, Signer("ann"), "the old model gives away secrets")
    done = registry.approvals.override(release.id, EVIDENCE, Signer("ann", "os:ann@box"), "the old model gives away secrets")
    assert done.state is State.APPROVED
    last = registry.history(release.id)[-1]
    assert (last.actor, last.reason) == ("ann", "EMERGENCY: the old model gives away secrets")
    (line,) = [each for each in registry.approvals.lines() if each.kind == "approval.overridden"]
    assert (line.actor, line.account, line.evidence_digest) == ("ann", "os:ann@box", EVIDENCE)


def test_a_recipe_may_know_no_emergency(registry: Registry) -> None:
    release = waiting(registry, ApprovalTerms(emergency=False))
    with pytest.raises(ApproverRefused, match="emergency: false"):
        registry.approvals.override(release.id, EVIDENCE, Signer("ann"), "the old model gives away secrets")


@pytest.mark.parametrize("state", [State.CANDIDATE, State.REJECTED])
def test_an_emergency_does_not_replace_a_verdict(registry: Registry, state: State) -> None:
    release = candidate(registry)
    if state is State.REJECTED:
        registry.reject(release.id, "gate", "FAIL")
    with pytest.raises(TransitionRefused):
        registry.approvals.override(release.id, EVIDENCE, Signer("ann"), "I want it now, whatever it costs")


def test_what_a_policy_approves_names_no_person_and_keeps_its_bounds(registry: Registry) -> None:
    release = waiting(registry)
    assert registry.approvals.grant_by_policy(release.id, EVIDENCE, {"bounds": {"rule_pass_rate": {"min": 0.95}}}).state is State.APPROVED
    (line,) = [each for each in registry.approvals.lines() if each.kind == "approval.auto"]
    assert line.values == {"bounds": {"bounds": {"rule_pass_rate": {"min": 0.95}}}}
    assert registry.history(release.id)[-1].actor == "policy"


def test_every_step_and_every_signature_is_in_the_audit_log(registry: Registry) -> None:
    release = approved(registry)
    registry.promote(release.id, EVIDENCE, "bob")
    assert [each.kind for each in registry.approvals.lines()] == [
        "release.candidate",
        "release.awaiting_approval",
        "approval.requested",
        "approval.signed",
        "approval.signed",
        "approval.granted",
        "release.approved",
        "release.live",
    ]
    assert registry.approvals.verify().faults == ()
    assert registry.approvals.verify([registry.approvals.lines()[2].sha256]).faults == ()


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'eve'", "DELETE FROM audit_log"])
def test_the_database_refuses_to_change_the_audit_log(registry: Registry, beside: Callable[[str], None], statement: str) -> None:
    approved(registry)
    with pytest.raises(Exception, match="append-only"):
        beside(statement)


def without_guard(registry_url: str, beside: Callable[[str], None], table: str, statement: str) -> None:
    """Change a guarded table as somebody with all rights would."""
    if registry_url.startswith("sqlite"):
        for verb in ("update", "delete"):
            beside(f"DROP TRIGGER {table}_no_{verb}")
    else:
        beside(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    beside(statement)


@pytest.mark.parametrize(
    ("table", "statement", "said"),
    [
        ("audit_log", "UPDATE audit_log SET actor = 'mallory' WHERE seq = 4", "was changed after it was written"),
        ("audit_log", "UPDATE audit_log SET facts = '{}' WHERE seq = 3", "was changed after it was written"),
        ("audit_log", "DELETE FROM audit_log WHERE seq = 4", "a line is missing"),
        ("audit_log", "DELETE FROM audit_log WHERE seq = 7", "is not in the audit log"),
        ("transitions", "UPDATE transitions SET sha256 = 'x' WHERE seq = 2", "which is another one"),
        ("transitions", "DELETE FROM transitions WHERE seq = 3", "which is gone"),
    ],
)
def test_a_changed_past_is_found(
    registry: Registry, registry_url: str, beside: Callable[[str], None], table: str, statement: str, said: str
) -> None:
    approved(registry)
    without_guard(registry_url, beside, table, statement)
    assert any(said in fault for fault in registry.approvals.verify().faults)


def test_a_shortened_log_is_found_by_a_head_that_was_noted(registry: Registry, registry_url: str, beside: Callable[[str], None]) -> None:
    release = waiting(registry)
    sign(registry, release, "bob")
    head = registry.approvals.verify().head
    without_guard(registry_url, beside, "audit_log", "DELETE FROM audit_log WHERE seq = 4")
    assert registry.approvals.verify().faults == ()
    assert "is not in the audit log" in registry.approvals.verify([head]).faults[0]


def test_an_approval_written_past_the_log_promotes_nothing(registry: Registry, beside: Callable[[str], None]) -> None:
    release = waiting(registry)
    beside("UPDATE releases SET state = 'approved'")
    with pytest.raises(EvidenceMismatch, match="holds no approval of its evidence"):
        registry.promote(release.id, EVIDENCE, "mallory")
