"""Brings calls below `/admin/` to their desk, and all others to the gateway, around which it stands.

The desk may wait for the registry, so it works in a thread: no caller of a model waits for an approver.
Next: `admin_api.py`, the desk; `gateway.py`, the other one.
"""

import asyncio
import logging

from serving.admin_api import MAX_BODY_BYTES, PREFIX, AdminDesk, authenticate
from serving.gateway import Gateway
from serving.gateway_call import Call
from serving.keys import KeyRing
from serving.metrics_requests import NO_RELEASE, RequestMetrics
from serving.openai_errors import ApiError, internal_error, too_large

_log = logging.getLogger(__name__)


class WithAdmin:
    """What connections put their calls to."""

    def __init__(self, gateway: Gateway, desk: AdminDesk, keys: KeyRing, metrics: RequestMetrics) -> None:
        self._gateway, self._desk, self._keys, self._metrics = gateway, desk, keys, metrics
        self._at_work: set[asyncio.Task[None]] = set()

    def glance(self, call: Call) -> ApiError | None:
        """Method, path and key. Without a good key nobody learns which paths there are."""
        if not call.path.startswith(PREFIX):
            return self._gateway.glance(call)
        given = call.headers.get(b"authorization")
        try:
            call.key = authenticate([] if given is None or b"authorization" in call.repeated else [given], self._keys)
        except ApiError as error:
            return error
        return None

    def serve(self, call: Call) -> None:
        """Answer a call that passed the glance."""
        if not call.path.startswith(PREFIX):
            self._gateway.serve(call)
            return
        task = asyncio.get_running_loop().create_task(self._answer(call))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    def refuse(self, call: Call, error: ApiError) -> None:
        """Say no, and count it."""
        self._gateway.refuse(call, error)

    def lost(self, call: Call) -> None:
        """Count a caller that hung up before its request was whole."""
        self._gateway.lost(call)

    def sweep(self, now_s: float) -> None:
        """Look at the clock."""
        self._gateway.sweep(now_s)

    def close(self) -> None:
        """Let go of everything."""
        self._gateway.close()

    async def _answer(self, call: Call) -> None:
        caller = call.owner = _Caller()
        assert call.key is not None
        try:
            if len(call.body) > MAX_BODY_BYTES:
                raise too_large(MAX_BODY_BYTES)
            status, body = await asyncio.to_thread(self._desk.answer, call.method.decode("latin-1"), call.path, call.body, call.key)
        except ApiError as error:
            if not caller.gone:
                self._gateway.refuse(call, error)
        except Exception:  # noqa: BLE001  # whatever it was, this caller gets an answer and the others are served
            _log.exception("an answer to %s failed", call.path)
            if not caller.gone:
                self._gateway.refuse(call, internal_error())
        else:
            self._metrics.requests(NO_RELEASE, "other").finished("ok", call.elapsed_s())
            if not caller.gone:
                call.whole(status, body)


class _Caller:
    """Hears that the caller hung up; what it asked for is done all the same."""

    gone = False

    def caller_gone(self) -> None:
        """See `gateway_call.Owner`."""
        self.gone = True

    def caller_slow(self, slow: bool) -> None:
        """An answer here is one small piece."""
