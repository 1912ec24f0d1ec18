"""The desk for approvals: who is let in, what is answered, and that a refusal changes nothing."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving.admin_api import AdminDesk, authenticate
from serving.approval_terms import ApprovalTerms
from serving.approvals import Asked
from serving.keys import KeyInfo, KeyRing, Scope, hash_secret
from serving.lifecycle import State
from serving.openai_errors import ApiError
from serving.registry import Registry
from tests.fakes_serving import EVIDENCE, candidate, url_in

RELEASES = "/admin/releases"


def key(*scopes: Scope, name: str = "bob") -> KeyInfo:
    return KeyInfo(id=f"key-{name}", name=name, scopes=frozenset(scopes), created_at=datetime(2030, 1, 1, tzinfo=UTC), revoked_at=None)


APPROVER, ADMIN, CALLER = key(Scope.APPROVE), key(Scope.ADMIN), key(Scope.INFER)
LATE = APPROVER.model_copy(update={"expires_at": datetime(2020, 1, 1, tzinfo=UTC)})
RING = KeyRing(
    {hash_secret("tg-late"): LATE, hash_secret("tg-bob"): APPROVER, hash_secret("tg-admin"): ADMIN, hash_secret("tg-app"): CALLER}
)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(url_in(tmp_path)) as made:
        release = candidate(made)
        made.submit(release.id, EVIDENCE, None, "gate", Asked(ApprovalTerms(approvers=2, requester_may_approve=False)))
        yield made


def ask(registry: Registry, path: str, body: Any = None, *, by: KeyInfo = APPROVER, method: str = "POST") -> tuple[int, Any]:
    """Status and answer; a refusal's answer is its code."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        status, answer = AdminDesk(registry).answer(method, path, raw, by)
    except ApiError as error:
        return error.status, error.code
    return status, json.loads(answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([b"Bearer tg-bob", b"Bearer tg-bob"], 401),
        ([b"Basic tg-bob"], 401),
        ([b"Bearer "], 401),
        ([b"Bearer tg-nobody"], 401),
        ([b"Bearer \xff\xfe"], 401),
        ([b"Bearer " + b"x" * 300], 401),
        ([b"Bearer tg-late"], 401),
        ([b"Bearer tg-app"], 403),
    ],
)
def test_nobody_without_the_scope_gets_to_the_desk(headers: list[bytes], status: int) -> None:
    with pytest.raises(ApiError) as refused:
        authenticate(headers, RING)
    assert refused.value.status == status


@pytest.mark.parametrize(("secret", "found"), [(b"tg-bob", APPROVER), (b"tg-admin", ADMIN)])
def test_a_good_key_is_let_in(secret: bytes, found: KeyInfo) -> None:
    assert authenticate([b"Bearer " + secret], RING) == found


def test_what_waits_is_told_with_what_has_to_be_signed(registry: Registry) -> None:
    status, answer = ask(registry, RELEASES, method="GET", by=ADMIN)
    (waiting,) = answer["releases"]
    assert (status, waiting["id"], waiting["evidence_digest"], waiting["signatures_missing"]) == (200, "clinic-1", EVIDENCE, 2)
    assert "/models" not in json.dumps(answer)


def test_two_keys_approve_a_release_that_wants_two(registry: Registry) -> None:
    body = {"evidence_digest": EVIDENCE, "comment": "read the report"}
    assert ask(registry, f"{RELEASES}/clinic-1/approve", body)[1]["signatures_missing"] == 1
    status, answer = ask(registry, f"{RELEASES}/clinic-1/approve", body, by=key(Scope.APPROVE, name="eve"))
    assert (status, answer["state"], answer["signed_by"]) == (200, "approved", ["bob", "eve"])
    assert [line.account for line in registry.approvals.lines() if line.kind == "approval.signed"] == ["key:key-bob", "key:key-eve"]


def test_a_rejection_is_kept_with_its_reason(registry: Registry) -> None:
    status, answer = ask(registry, f"{RELEASES}/clinic-1/reject", {"reason": "too terse"})
    assert (status, answer["state"]) == (200, "rejected")
    assert registry.history("clinic-1")[-1].reason == "too terse"


def test_an_emergency_is_one_request(registry: Registry) -> None:
    body = {"evidence_digest": EVIDENCE, "emergency": "the old model gives away secrets"}
    assert ask(registry, f"{RELEASES}/clinic-1/approve", body)[1]["state"] == "approved"


@pytest.mark.parametrize(
    ("path", "method", "body", "by", "refusal"),
    [
        ("/clinic-1/approve", "POST", {"evidence_digest": "0" * 64}, APPROVER, (409, "refused")),
        ("/clinic-1/approve", "POST", {"evidence_digest": EVIDENCE[:12]}, APPROVER, (400, None)),
        ("/clinic-1/approve", "POST", {}, APPROVER, (400, None)),
        ("/clinic-1/approve", "POST", {"evidence_digest": EVIDENCE, "as": "boss"}, APPROVER, (400, None)),
        ("/clinic-1/approve", "POST", {"evidence_digest": EVIDENCE, "comment": "x" * 2001}, APPROVER, (400, None)),
        ("/clinic-1/approve", "POST", b"\xff", APPROVER, (400, None)),
        ("/clinic-1/approve", "POST", b"[" * 16_000, APPROVER, (400, None)),
        ("/clinic-1/approve", "POST", {"evidence_digest": EVIDENCE}, ADMIN, (403, "insufficient_scope")),
        ("/clinic-1/approve", "POST", {"evidence_digest": EVIDENCE}, key(Scope.APPROVE, name="Ann"), (403, "approver_refused")),
        ("/clinic-1/approve", "POST", {"evidence_digest": EVIDENCE, "emergency": "now"}, APPROVER, (403, "approver_refused")),
        ("/clinic-9/approve", "POST", {"evidence_digest": EVIDENCE}, APPROVER, (404, "release_not_found")),
        ("/clinic-1/reject", "POST", {"reason": ""}, APPROVER, (400, None)),
        ("/clinic-1/reject", "POST", {"reason": "no"}, ADMIN, (403, "insufficient_scope")),
        ("/clinic-1/approve", "GET", None, APPROVER, (405, "method_not_allowed")),
        ("", "POST", None, APPROVER, (405, "method_not_allowed")),
        ("/../clinic-1/approve", "POST", {"evidence_digest": EVIDENCE}, APPROVER, (404, "not_found")),
        ("/clinic-1/promote", "POST", {}, APPROVER, (404, "not_found")),
    ],
)
def test_a_refusal_changes_nothing(
    registry: Registry, path: str, method: str, body: Any, by: KeyInfo, refusal: tuple[int, str | None]
) -> None:
    before = registry.approvals.lines()
    assert ask(registry, RELEASES + path, body, by=by, method=method) == refusal
    assert registry.approvals.lines() == before
    assert registry.release("clinic-1").state is State.AWAITING_APPROVAL


def test_a_registry_that_is_gone_is_503_and_names_no_file(registry: Registry, tmp_path: Path) -> None:
    registry.close()
    for path in tmp_path.glob("registry.db*"):
        path.unlink()
    with pytest.raises(ApiError) as refused:
        AdminDesk(registry).answer("GET", RELEASES, b"", APPROVER)
    assert refused.value.status == 503
    assert str(tmp_path) not in refused.value.message
