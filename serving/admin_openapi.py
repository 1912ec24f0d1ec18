"""What approvers may ask, for the OpenAPI document. Bodies are described by the models that read them.

Next: `admin_api.py`, which has those and answers; `gateway_openapi.py`, which joins this to the rest.
"""

from serving.admin_api import ID, RELEASES, ApproveBody, RejectBody
from serving.field_shapes import Json
from serving.lifecycle import State
from serving.openapi_parts import answer, list_of, operation, record

_RELEASE = record(
    "id", "public_name", "requested_by", "model_digest",
    state={"enum": [state.value for state in State]}, signed_by=list_of({"type": "string"}),
    evidence_digest={"type": ["string", "null"]}, signatures_missing={"type": "integer", "minimum": 0}, terms={"type": "object"},
)  # fmt: skip
_WHICH = [{"name": "release_id", "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{ID}$"}}]


def admin_paths() -> Json:
    """The paths below `/admin/`."""
    one = RELEASES + "/{release_id}"
    return {
        RELEASES: {"get": operation("waiting", answer("what waits for approval, or has it", record(releases=list_of(_RELEASE))), 404)},
        f"{one}/approve": {"post": _deciding("approve", ApproveBody.model_json_schema())},
        f"{one}/reject": {"post": _deciding("reject", RejectBody.model_json_schema())},
    }


def _deciding(name: str, body: Json) -> Json:
    return {**operation(name, answer("the release as it is now", _RELEASE), 404, 409, body=body), "parameters": _WHICH}
