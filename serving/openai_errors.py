"""Errors in the shape every OpenAI client understands: `{"error": {message, type, param, code}}` and the right status.

A message never repeats a key. Knows nothing of sockets or metrics. Next: `limits.py`, which raises most of them.
"""

import json

INVALID_REQUEST = "invalid_request_error"
AUTHENTICATION = "authentication_error"
PERMISSION = "permission_error"
RATE_LIMIT = "rate_limit_error"
SERVER = "server_error"
TIMEOUT = "timeout_error"


class ApiError(Exception):
    """An answer other than 2xx.

    Args:
        status: HTTP status.
        kind: OpenAI's `type`.
        code: OpenAI's `code`, what a program branches on; None where OpenAI gives none.
        param: the body field at fault.
        retry_after_s: seconds for `Retry-After`, when trying again makes sense.
        allow: the methods for `Allow`.
    """

    def __init__(
        self, status: int, kind: str, message: str, *, code: str | None = None, param: str | None = None,
        retry_after_s: int | None = None, allow: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.code, self.param, self.retry_after_s, self.allow = code, param, retry_after_s, allow

    def body(self) -> bytes:
        """The JSON body."""
        return json.dumps({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}).encode()

    def event(self) -> bytes:
        """The same as one server-sent event: what a stream that already said 200 has left to say."""
        return b"data: " + self.body() + b"\n\n"


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the caller's body is at fault."""
    return ApiError(400, INVALID_REQUEST, message, param=param, code=code)


def unauthorized(message: str) -> ApiError:
    """401: no key, two keys, or a key that is not known, has expired or was revoked."""
    return ApiError(401, AUTHENTICATION, message, code="invalid_api_key")


def forbidden(scope: str) -> ApiError:
    """403: a good key without the scope."""
    return ApiError(403, PERMISSION, f"this key lacks the scope '{scope}'; make one with `tunegate keys create`", code="insufficient_scope")


def unknown_route(path: str) -> ApiError:
    """404: default deny."""
    return ApiError(404, INVALID_REQUEST, f"unknown route: {path[:200]}", code="not_found")


def method_not_allowed(method: str, allowed: str) -> ApiError:
    """405: the route exists with another method."""
    message = f"{method[:20]} is not allowed here; use {allowed}"
    return ApiError(405, INVALID_REQUEST, message, code="method_not_allowed", allow=allowed)


def model_not_found(model: str) -> ApiError:
    """404: no such public name."""
    message = f"the model '{model[:200]}' does not exist; GET /v1/models lists the ones that do"
    return ApiError(404, INVALID_REQUEST, message, param="model", code="model_not_found")


def body_timeout(seconds: float) -> ApiError:
    """408: the caller did not send its request in time."""
    return ApiError(408, INVALID_REQUEST, f"the request did not arrive whole within {seconds:g} s", code="request_timeout")


def too_large(limit_bytes: int) -> ApiError:
    """413: the body is over the cap."""
    return ApiError(413, INVALID_REQUEST, f"the request body is larger than {limit_bytes} bytes", code="request_too_large")


def overloaded(retry_after_s: int) -> ApiError:
    """429: every place and the queue are taken; nothing was sent to the model."""
    return ApiError(
        429, RATE_LIMIT, "too many requests are in flight; try again shortly", code="rate_limit_exceeded", retry_after_s=retry_after_s
    )


def head_too_large(limit_bytes: int) -> ApiError:
    """431: target and headers are over the cap."""
    return ApiError(431, INVALID_REQUEST, f"the request's head is larger than {limit_bytes} bytes", code="headers_too_large")


def bad_http(reason: str) -> ApiError:
    """400: not a request that can be read safely; the connection is closed after it."""
    return bad_request(f"this is not a well-formed HTTP request: {reason[:200]}", code="invalid_http")


def expectation_failed() -> ApiError:
    """417: an `Expect` other than 100-continue."""
    return ApiError(417, INVALID_REQUEST, "the only expectation understood is 100-continue", code="expectation_failed")


def rate_limited(what: str, retry_after_s: int) -> ApiError:
    """429: this key is over one of its own limits."""
    return ApiError(429, RATE_LIMIT, f"this key is over its limit of {what}", code="rate_limit_exceeded", retry_after_s=retry_after_s)


def not_served(route: str, model: str) -> ApiError:
    """404: the route is allowed, and the engine behind this name does not have it."""
    return ApiError(404, INVALID_REQUEST, f"the model '{model[:200]}' does not serve {route}", param="model", code="not_found")


def release_not_there(release: str) -> ApiError:
    """404: a pin names a release that no slot serves."""
    message = f"the release '{release[:100]}' is not being served under this model's name"
    return ApiError(404, INVALID_REQUEST, message, param="x-tunegate-pin", code="release_not_found")


def unknown_request(request_id: str) -> ApiError:
    """404: feedback about an answer that this key did not get, or that was not kept."""
    message = f"no answer with the x-request-id '{request_id[:100]}' was kept for this key"
    return ApiError(404, INVALID_REQUEST, message, param="request_id", code="request_not_found")


def internal_error() -> ApiError:
    """500: a fault of the gateway itself; its log has the rest."""
    return ApiError(500, SERVER, "the gateway failed on this request", code="internal_error")


def no_champion(model: str, retry_after_s: int) -> ApiError:
    """503: the name is known and no release answers for it now."""
    return ApiError(503, SERVER, f"the model '{model[:200]}' is not ready", code="model_not_ready", retry_after_s=retry_after_s)


def upstream_unreachable(retry_after_s: int) -> ApiError:
    """503: the slot takes no connection; the request was not started."""
    return ApiError(503, SERVER, "the model server cannot be reached", code="upstream_unreachable", retry_after_s=retry_after_s)


def upstream_failed(message: str, retry_after_s: int) -> ApiError:
    """502: the slot broke off or answered with something that is no answer."""
    return ApiError(502, SERVER, message, code="upstream_failed", retry_after_s=retry_after_s)


def upstream_timeout(message: str) -> ApiError:
    """504: the slot was silent or slow for too long."""
    return ApiError(504, TIMEOUT, message, code="upstream_timeout")
