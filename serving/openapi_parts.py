"""The words that each operation of the OpenAPI document is put together from: bodies, answers, refusals.

Knows no route. Next: `gateway_openapi.py` and `admin_openapi.py`, which name them.
"""

from serving.field_shapes import Json

KEYED = [{"key": list[str]()}]
_REFUSALS = {
    400: "the request, its body, or a field of it is at fault", 401: "no key, or not one that opens", 403: "the key may not do this",
    404: "no such model, release or answer", 408: "the request came too slowly", 409: "it cannot be done any more, or not yet",
    413: "the body is too large", 417: "an unknown expectation", 429: "over a limit; `Retry-After` says when to come again",
    431: "the head is too large", 502: "the model server broke off", 503: "nobody can answer now; `Retry-After`",
    504: "the model server took too long",
}  # fmt: skip
_ANYWHERE = (400, 408, 413, 417, 431, 503)
_WITH_KEY = (401, 403)
TEXT = {"type": "string"}


def operation(name: str, answers: Json, *statuses: int, key: bool = True, body: Json | None = None) -> Json:
    """One operation: its good answers, the statuses it may refuse with besides those any request may get, and what it reads."""
    refused = {*_ANYWHERE, *statuses, *(_WITH_KEY if key else ())}
    made: Json = {"operationId": name, "responses": {str(status): _refusal(status) for status in sorted(refused)} | answers}
    if key:
        made["security"] = KEYED
    if body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return made


def answer(description: str, schema: Json, content_type: str = "application/json", *, status: int = 200) -> Json:
    """A good answer, under its status."""
    return {str(status): {"description": description, "headers": _headers(), "content": {content_type: {"schema": schema}}}}


def record(*texts: str, **others: Json) -> Json:
    """An object that has all of these; `texts` are texts."""
    properties = dict.fromkeys(texts, TEXT) | others
    return {"type": "object", "properties": properties, "required": list(properties)}


def list_of(schema: Json) -> Json:
    """An array of these."""
    return {"type": "array", "items": schema}


def error_schema() -> Json:
    """OpenAI's."""
    maybe = {"type": ["string", "null"]}
    return record(error=record("message", "type", param=maybe, code=maybe))


def _refusal(status: int) -> Json:
    headers = _headers(sure=status != 503)  # one over the cap of connections is told so before anything is read
    if status == 429:
        headers["Retry-After"] = _header("integer")
    if status == 401:
        headers["WWW-Authenticate"] = _header("string")
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": _REFUSALS[status], "headers": headers, "content": content}


def _headers(*, sure: bool = True) -> Json:
    return {"x-request-id": _header("string", sure=sure)}


def _header(kind: str, *, sure: bool = True) -> Json:
    return {"required": sure, "schema": {"type": kind}}
