"""The gateway's own OpenAPI document: what it takes and how it answers, for client generators and for tests that probe it.

Request bodies name the fields that pass; the bounds are those of `limits.py`, in its own words. Other fields are dropped, so the schemas
leave room for them. What a schema cannot say is said in a description. Next: `gateway.py`, which serves it; `openapi_parts.py`.
"""

import orjson

from serving.admin_openapi import admin_paths
from serving.field_shapes import Json, Prompts, Whole
from serving.gateway_feedback import feedback_schema
from serving.limits import CHAT_FIELDS, COMPLETION_FIELDS, EMBEDDING_FIELDS, Caps
from serving.openapi_parts import TEXT, answer, error_schema, list_of, operation, record

_STREAM = "text/event-stream"
_MODEL_REFUSES = (404, 429, 502, 504)
_CHOICES = {"type": "object", "properties": {"choices": list_of({"type": "object"})}, "required": ["choices"]}
_VECTORS = {"type": "object", "properties": {"data": list_of({"type": "object"})}, "required": ["data"]}
_MODELS = record(object={"const": "list"}, data=list_of(record("id", "owned_by", object={"const": "model"}, created={"type": "integer"})))
_HEALTH = record(status={"enum": ["ok", "not_ready"]}, ready={"type": "object", "additionalProperties": {"type": "boolean"}})
_THANKS = record(object={"const": "feedback"}, status={"const": "kept"})


def document(caps: Caps, *, feedback: bool) -> bytes:
    """The document as JSON; `feedback`: answers are kept, and can be spoken of."""
    schemes = {"key": {"type": "http", "scheme": "bearer"}}
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "tunegate", "version": "1", "description": "OpenAI-compatible; answers name their release."},
            "paths": _model_paths(caps) | _own_paths() | (_feedback_path() if feedback else {}) | admin_paths(),
            "components": {"securitySchemes": schemes, "schemas": {"Error": error_schema()}},
        }
    )


def _model_paths(caps: Caps) -> Json:
    completion = _body(COMPLETION_FIELDS, "prompt", caps) | {"anyOf": _choices(caps.sequences)}
    streamed = answer("the answer, whole or as events", _CHOICES)
    streamed["200"]["content"][_STREAM] = {"schema": {"description": "chunks of the answer as JSON, the last one [DONE]"}}
    vectors = answer("the vectors", _VECTORS)
    return {
        "/v1/chat/completions": {"post": operation("chat", streamed, *_MODEL_REFUSES, body=_body(CHAT_FIELDS, "messages", caps))},
        "/v1/completions": {"post": operation("completion", streamed, *_MODEL_REFUSES, body=completion)},
        "/v1/embeddings": {"post": operation("embeddings", vectors, *_MODEL_REFUSES, body=_body(EMBEDDING_FIELDS, "input", caps))},
    }


def _own_paths() -> Json:
    health = answer("every name has a release that is ready", _HEALTH) | answer("not so", _HEALTH, status=503)
    page = answer("the metrics, in Prometheus' words", TEXT, "text/plain")
    slots = answer("where the engines' metrics are", list_of(record(targets=list_of(TEXT), labels={"type": "object"})))
    return {
        "/v1/models": {"get": operation("models", answer("the public names", _MODELS))},
        "/health": {"get": operation("health", health, key=False)},
        "/openapi.json": {"get": operation("openapi", answer("this document", {"type": "object"}), key=False)},
        "/metrics": {"get": operation("metrics", page, 404, key=False)},
        "/metrics/slots": {"get": operation("slots", slots, 404, key=False)},
    }


def _feedback_path() -> Json:
    return {"/v1/feedback": {"post": operation("feedback", answer("kept", _THANKS, status=202), 404, body=feedback_schema())}}


def _body(fields: frozenset[str], needs: str, caps: Caps) -> Json:
    """Null is the same as leaving a field out, but for those that are needed."""
    shaped = {field: {"anyOf": [caps.shapes[field].schema(), {"type": "null"}]} for field in sorted(fields & caps.shapes.keys())}
    needed = {"model": {"type": "string", "minLength": 1}, needs: caps.shapes[needs].schema()}
    return {"type": "object", "properties": {field: Json() for field in sorted(fields)} | shaped | needed, "required": ["model", needs]}


def _choices(most: int) -> list[Json]:
    """Prompts times n is bounded: for each n the most prompts, each number of prompts once, with the largest n it goes with."""
    largest = {most // n: n for n in range(1, most + 1)}
    return [
        {"properties": {"prompt": Prompts(prompts).schema(), "n": {"anyOf": [Whole(1, n).schema(), {"type": "null"}]}}}
        for prompts, n in largest.items()
    ]
