"""The gateway's own OpenAPI document: what it takes and how it answers, for client generators and for tests that probe it.

Request bodies name the fields that pass and the bounds they are held to (`limits.py`); other fields are dropped, so the schemas
leave room for them. What cannot be said in a schema is said narrower than it is. Next: `gateway.py`, which serves it.
"""

from typing import Any

import orjson

from serving.gateway_feedback import LONGEST, RATINGS
from serving.limits import CHAT_FIELDS, COMPLETION_FIELDS, EMBEDDING_FIELDS, LONGEST_LISTS, MOST_INPUTS, MOST_LOGPROBS, Caps

_Json = dict[str, Any]
_KEYED = [{"key": list[str]()}]
_REFUSALS = {
    400: "the body, or a field of it, is at fault", 401: "no key, or not one that opens", 403: "the key lacks a scope",
    404: "no such model, release or answer", 408: "the request came too slowly", 413: "the body is too large",
    417: "an unknown expectation", 429: "over a limit; `Retry-After` says when to come again", 431: "the head is too large",
    502: "the model server broke off", 503: "no slot is ready; `Retry-After`", 504: "the model server took too long",
}  # fmt: skip
_TEXT_PART = {"type": "object", "properties": {"type": {"enum": ["text", "refusal"]}, "text": {"type": "string"}}, "required": ["type"]}
_CONTENT = {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": _TEXT_PART}]}
_MESSAGE = {"type": "object", "properties": {"role": {"type": "string"}, "content": _CONTENT}, "required": ["role"]}
_TOOL = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "properties": {"name": {"type": "string"}, "parameters": {}}},
    },
    "required": ["function"],
}


def document(caps: Caps, *, feedback: bool) -> bytes:
    """The document as JSON; `feedback`: answers are kept, and can be spoken of."""
    schemas = {"Error": _error_schema(), "Answer": {"type": "object"}}
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "tunegate", "version": "1", "description": "OpenAI-compatible; answers name their release."},
            "paths": _paths(caps) | ({"/v1/feedback": {"post": _feedback()}} if feedback else {}),
            "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}, "schemas": schemas},
        }
    )


def _paths(caps: Caps) -> _Json:
    messages = {"type": "array", "items": _MESSAGE, "maxItems": LONGEST_LISTS["messages"]}
    prompts = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": caps.sequences}]}
    inputs = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": MOST_INPUTS}]}
    completion = _asking("completion", COMPLETION_FIELDS, {"prompt": prompts}, caps, streams=True)
    # Prompts times n is bounded; several prompts with n = 1 is the part of that which a schema can say.
    one_choice = [{"properties": {"prompt": {"type": "string"}}}, {"properties": {"n": {"enum": [1, None]}}}]
    completion["requestBody"]["content"]["application/json"]["schema"]["anyOf"] = one_choice
    return {
        "/v1/chat/completions": {"post": _asking("chat", CHAT_FIELDS, {"messages": messages}, caps, streams=True)},
        "/v1/completions": {"post": completion},
        "/v1/embeddings": {"post": _asking("embeddings", EMBEDDING_FIELDS, {"input": inputs}, caps, streams=False)},
        "/v1/models": {"get": _reading("models", (200, 401, 403)) | {"security": _KEYED}},
        "/health": {"get": _reading("health", (200,)) | {"responses": {"200": _answer("ready"), "503": _answer("not ready")}}},
        "/openapi.json": {"get": _reading("openapi", (200,))},
    }


def _bounded(caps: Caps) -> _Json:
    """The fields whose values are checked; null is the same as leaving a field out."""

    def number(low: int, high: int) -> _Json:
        return {"type": ["integer", "null"], "minimum": low, "maximum": high}

    lists = {name: {"type": ["array", "null"], "maxItems": most, "items": {"type": "integer"}} for name, most in LONGEST_LISTS.items()}
    return lists | {
        "n": number(1, caps.sequences),
        "max_tokens": number(0, caps.tokens),
        "max_completion_tokens": number(0, caps.tokens),
        "min_tokens": number(0, caps.tokens),
        "top_logprobs": number(0, MOST_LOGPROBS),
        "logprobs": {"anyOf": [{"type": ["boolean", "null"]}, number(0, MOST_LOGPROBS)]},
        "logit_bias": {"type": ["object", "null"], "maxProperties": LONGEST_LISTS["logit_bias"]},
        "stop": {"type": ["string", "null"]},
        "tools": {"type": ["array", "null"], "items": _TOOL, "maxItems": 16},
        "response_format": {"anyOf": [{"type": "null"}, _format()]},
        "stream": {"type": ["boolean", "null"]},
    }


def _format() -> _Json:
    return {"type": "object", "properties": {"type": {"enum": ["text", "json_object"]}}, "required": ["type"]}


def _asking(name: str, fields: frozenset[str], required: _Json, caps: Caps, *, streams: bool) -> _Json:
    bounded = {field: schema for field, schema in _bounded(caps).items() if field in fields}
    properties = {field: _Json() for field in sorted(fields)} | bounded | {"model": {"type": "string", "minLength": 1}} | required
    answer = _answer("the answer")
    if streams:
        answer["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return _posting(name, {"type": "object", "properties": properties, "required": ["model", *required]}, {"200": answer})


def _feedback() -> _Json:
    texts = {name: {"type": ["string", "null"], "maxLength": most} for name, most in LONGEST.items()}
    properties = {"request_id": {"type": "string", "minLength": 1, "maxLength": 100}, "rating": {"enum": list(RATINGS)}, **texts}
    schema = {"type": "object", "properties": properties, "required": ["request_id", "rating"], "additionalProperties": False}
    return _posting("feedback", schema, {"202": _answer("kept")})


def _posting(name: str, schema: _Json, answers: _Json) -> _Json:
    responses = answers | {str(status): _refusal(status) for status in _REFUSALS}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"operationId": name, "security": _KEYED, "requestBody": body, "responses": responses}


def _reading(name: str, statuses: tuple[int, ...]) -> _Json:
    return {"operationId": name, "responses": {str(at): _answer("what was asked for") if at == 200 else _refusal(at) for at in statuses}}


def _answer(description: str) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}}


def _refusal(status: int) -> _Json:
    error = {"schema": {"$ref": "#/components/schemas/Error"}}
    return {"description": _REFUSALS[status], "content": {"application/json": error}}


def _error_schema() -> _Json:
    text, maybe = {"type": "string"}, {"type": ["string", "null"]}
    inside: _Json = {"type": "object", "properties": {"message": text, "type": text, "param": maybe, "code": maybe}}
    inside["required"] = ["message", "type", "param", "code"]
    return {"type": "object", "properties": {"error": inside}, "required": ["error"]}
