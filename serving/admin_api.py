"""Approving and rejecting over HTTP: what waits, a signature, a refusal. Nothing else is changed from outside.

    GET  /admin/releases                    what waits for whom          key with scope approve or admin
    POST /admin/releases/RELEASE/approve    sign this very evidence      key with scope approve
    POST /admin/releases/RELEASE/reject     for good                     key with scope approve

A key that may only ask models learns nothing here, not even which paths exist. The name kept with a signature is the key's, and the
account that vouches for it is the key's id. Knows nothing of sockets. Next: `admin_door.py`, which brings requests here.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.approval_terms import Signer
from serving.approvals import Standing
from serving.errors import ApproverRefused, RegistryError, TransitionRefused, UnknownRelease
from serving.keys import KeyInfo, KeyRing, Scope
from serving.lifecycle import State
from serving.openai_errors import PERMISSION, SERVER, ApiError, bad_request, forbidden, method_not_allowed, unauthorized, unknown_route
from serving.records import Release
from serving.registry import Registry

PREFIX = "/admin/"
MAX_BODY_BYTES = 16_384
RELEASES = PREFIX + "releases"
ID = "[a-z0-9][a-z0-9._-]{0,79}"
_ACTION = re.compile(f"{re.escape(RELEASES)}/({ID})/(approve|reject)")
_MAX_KEY_BYTES = 256
_Text = Annotated[str, Field(max_length=2_000)]
_Body = TypeVar("_Body", bound=BaseModel)


class ApproveBody(BaseModel):
    """What a signature says. `emergency` is the reason to approve alone and late."""

    model_config = ConfigDict(extra="forbid", strict=True)

    evidence_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    comment: _Text = ""
    emergency: _Text | None = None


class RejectBody(BaseModel):
    """Why not."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Annotated[str, Field(min_length=1, max_length=2_000)]


def authenticate(authorization: Sequence[bytes], keys: KeyRing) -> KeyInfo:
    """The key that these headers carry, if it may do anything here.

    Raises:
        ApiError: 401 without a good key, 403 without the scope.
    """
    if len(authorization) != 1:
        raise unauthorized("send exactly one header 'Authorization: Bearer <key>'")
    scheme, _, secret = authorization[0].partition(b" ")
    if scheme.lower() != b"bearer" or not secret or len(secret) > _MAX_KEY_BYTES:
        raise unauthorized("the Authorization header must read 'Bearer <key>'")
    key = keys.find(secret)
    if key is None:
        raise unauthorized("this key is not known, or was revoked")
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        raise unauthorized("this key has expired")
    if not {Scope.APPROVE, Scope.ADMIN} & key.scopes:
        raise forbidden(Scope.APPROVE.value)
    return key


class AdminDesk:
    """Answers requests below `/admin/`. Every call asks the registry, so it may block."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def answer(self, method: str, path: str, body: bytes, key: KeyInfo) -> tuple[int, bytes]:
        """Status and JSON of one request.

        Raises:
            ApiError: it is refused; nothing was changed.
        """
        action = _ACTION.fullmatch(path)
        if path != RELEASES and action is None:
            raise unknown_route(path)
        allowed = "GET" if action is None else "POST"
        if method != allowed:
            raise method_not_allowed(method, allowed)
        if action is None:
            return 200, _json({"releases": _explained(self._waiting)})
        if Scope.APPROVE not in key.scopes:
            raise forbidden(Scope.APPROVE.value)
        release_id, verb = action.groups()
        act = self._approve if verb == "approve" else self._reject
        return 200, _json(_explained(lambda: act(release_id, body, Signer(key.name, f"key:{key.id}"))))

    def _waiting(self) -> list[dict[str, Any]]:
        waiting = [each for each in self._registry.releases() if each.state in (State.AWAITING_APPROVAL, State.APPROVED)]
        return [_shown(each, self._registry.approvals.standing(each.id)) for each in waiting]

    def _approve(self, release_id: str, body: bytes, signer: Signer) -> dict[str, Any]:
        said, book = _read(ApproveBody, body), self._registry.approvals
        if said.emergency is not None:
            signed = book.override(release_id, said.evidence_digest, signer, said.emergency)
        else:
            signed = book.sign(release_id, said.evidence_digest, signer, said.comment)
        return _shown(signed, book.standing(release_id))

    def _reject(self, release_id: str, body: bytes, signer: Signer) -> dict[str, Any]:
        rejected = self._registry.reject(release_id, signer.name, _read(RejectBody, body).reason, signer.account)
        self._registry.release_slot(release_id)
        return _shown(rejected, self._registry.approvals.standing(release_id))


def _shown(release: Release, standing: Standing) -> dict[str, Any]:
    """What an approver needs to know; no folder of this machine is named."""
    return {
        "id": release.id,
        "public_name": release.public_name,
        "state": release.state,
        "recipe": release.recipe_name,
        "requested_by": release.requester,
        "model_digest": release.model_digest,
        "evidence_digest": release.evidence_digest,
        "judged_against": release.judged_against,
        "requested_at": None if standing.requested_at is None else standing.requested_at.isoformat(),
        "signed_by": [each.name for each in standing.signatures],
        "signatures_missing": standing.missing,
        "terms": standing.terms.model_dump(mode="json"),
    }


def _read(kind: type[_Body], body: bytes) -> _Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise bad_request(f"{field or 'the body'}: {first['msg']}", param=field or None) from None


_T = TypeVar("_T")


def _explained(act: Callable[[], _T]) -> _T:
    """Do it; what the registry objects to becomes an answer."""
    try:
        return act()
    except UnknownRelease as error:
        raise ApiError(404, "invalid_request_error", error.what, code="release_not_found") from None
    except ApproverRefused as error:
        raise ApiError(403, PERMISSION, error.what, code="approver_refused") from None
    except TransitionRefused as error:
        raise ApiError(409, "invalid_request_error", error.what, code="refused") from None
    except RegistryError:
        raise ApiError(503, SERVER, "the registry cannot be used right now; nothing was changed", retry_after_s=1) from None


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
