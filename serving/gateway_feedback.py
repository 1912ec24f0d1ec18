"""What a caller's user said of an answer: `POST /v1/feedback`, tied to the answer by its `x-request-id`.

    {"request_id": "req-…", "rating": "up" | "down", "comment": "…", "correction": "what it should have said"}

Only answers that are kept can be spoken of, and only with the key that asked. Pure; next: `gateway_house.py`, which knows those.
"""

from typing import Any

import orjson

from serving.field_shapes import Json
from serving.keeping import Kept
from serving.openai_errors import bad_request

_RATINGS = ("up", "down")
_LONGEST = {"comment": 4_000, "correction": 32_000}
_LONGEST_ID = 100
_FIELDS = frozenset({"request_id", "rating", *_LONGEST})
ACCEPTED = orjson.dumps({"object": "feedback", "status": "kept"})


def read_feedback(body: bytes, key_id: str) -> Kept:
    """The record this body asks to keep.

    Raises:
        ApiError: 400 naming the field.
    """
    given = _object(body)
    request_id = given.get("request_id")
    if not isinstance(request_id, str) or not 1 <= len(request_id) <= _LONGEST_ID:
        raise bad_request("'request_id' must be the x-request-id of an answer", param="request_id")
    rating = given.get("rating")
    if rating is not None and rating not in _RATINGS:
        raise bad_request(f"'rating' must be one of {', '.join(_RATINGS)}", param="rating")
    texts = {name: _text(given, name, most) for name, most in _LONGEST.items() if given.get(name) is not None}
    if rating is None and not texts:
        raise bad_request("send a rating, a comment or a correction")
    return Kept("feedback", request_id, key_id, texts, {"rating": rating})


def feedback_schema() -> Json:
    """What `read_feedback` takes, as JSON schema."""
    said: Json = {name: {"type": "string", "maxLength": most} for name, most in _LONGEST.items()} | {"rating": {"enum": list(_RATINGS)}}
    return {
        "type": "object",
        "properties": {
            "request_id": {"type": "string", "minLength": 1, "maxLength": _LONGEST_ID},
            **{name: {"anyOf": [schema, {"type": "null"}]} for name, schema in said.items()},
        },
        "required": ["request_id"],
        "anyOf": [{"properties": {name: schema}, "required": [name]} for name, schema in said.items()],
        "additionalProperties": False,
    }


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not valid JSON: {str(error)[:200]}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    if unknown := sorted(given.keys() - _FIELDS):
        raise bad_request(f"unknown field {unknown[0][:50]!r}; there are {', '.join(sorted(_FIELDS))}", param=unknown[0][:50])
    return given


def _text(given: dict[str, Any], name: str, most: int) -> str:
    text = given[name]
    if not isinstance(text, str) or len(text) > most:
        raise bad_request(f"'{name}' must be text of {most} characters at most", param=name)
    return text
