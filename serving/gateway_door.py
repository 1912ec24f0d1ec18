"""Opens the gateway on a socket that already listens, and closes it without losing anybody.

Closing: no new connections are taken, so those that wait at the socket go to whoever else listens on it; each connection's next answer
is its last and says so; then, after the time to drain, what is left is cut. Knows nothing of what a request asks for.
Next: `gateway_connection.py`; `gateway_tls.py`, the certificate.
"""

import asyncio
import socket
from time import monotonic
from typing import Protocol, cast

from serving.gateway_commons import Crowd, CrowdHere
from serving.gateway_connection import CallerConnection, Desk, WireLimits
from serving.gateway_tls import Certificate
from serving.settings import Settings

_SWEEP_S = 0.1
_PAUSED_S = 0.3
_LOOK_S = 1.0
# Longer than the usual 60 s of front proxies, so that they close idle connections first and never write into a closing one.
_KEEP_ALIVE_S = 75.0
_FULL = b'{"error":{"message":"too many connections","type":"server_error","param":null,"code":"too_many_connections"}}'
_FULL_HEAD = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"


class Premises(Desk, Protocol):
    """What is behind the door: a desk that must be told the time, and the end."""

    def sweep(self, now_s: float) -> None:
        """Look at the clock for everything that waits."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Door:
    """The gateway's listening side, in one event loop."""

    def __init__(self, gateway: Premises, settings: Settings, crowd: Crowd | None = None) -> None:
        self._gateway, self._crowd = gateway, crowd or CrowdHere(settings.max_connections)
        self._limits = WireLimits(
            settings.max_head_bytes, settings.max_body_bytes, settings.head_timeout_s, settings.body_timeout_s, _KEEP_ALIVE_S
        )
        self._certificate = Certificate(settings)
        self._connections: set[CallerConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def open(self, listener: socket.socket) -> None:
        """Take callers from `listener` from now on."""
        loop = asyncio.get_running_loop()
        tls = self._certificate.context
        handshake_s = self._limits.head_s if tls else None
        self._server = await loop.create_server(self._meet, sock=listener, ssl=tls, ssl_handshake_timeout=handshake_s)
        self._sweeping = asyncio.create_task(self._sweep(), name="gateway clock")

    async def close(self, within_s: float) -> None:
        """Stop taking callers, let requests under way finish within so many seconds, then cut what is left."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.drain()
        end_s = monotonic() + within_s
        while self._connections and monotonic() < end_s:
            await asyncio.sleep(_SWEEP_S / 2)
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._gateway.close()

    def _meet(self) -> asyncio.Protocol:
        if not self._crowd.admits(len(self._connections)):
            return _TurnedAway()
        return CallerConnection(self._gateway, self._limits, self._connections)

    async def _sweep(self) -> None:
        paused, looked_s = False, monotonic()
        while True:
            before_s = monotonic()
            await asyncio.sleep(_SWEEP_S)
            now_s = monotonic()
            # Had the whole process stood still, what came meanwhile lies unread (uvloop's timers run before its sockets): nobody is
            # blamed for that time before the sockets were read once.
            paused = not paused and now_s - before_s > _PAUSED_S
            if paused:
                continue
            for connection in list(self._connections):
                connection.sweep(now_s)
            self._crowd.are_here(len(self._connections))
            self._gateway.sweep(now_s)
            if now_s - looked_s > _LOOK_S:
                looked_s = now_s
                self._certificate.look()


class _TurnedAway(asyncio.Protocol):
    """Says that there are too many, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writer = cast(asyncio.Transport, transport)
        writer.write(b"%bcontent-length: %d\r\n\r\n%b" % (_FULL_HEAD, len(_FULL), _FULL))
        writer.close()
