"""Places for requests under way, and a bounded queue before them.

A request that finds no place, or no slot that is ready, waits its turn for a while; when the queue is full it is turned away at once.
Knows nothing of keys or bodies, nor in how many processes places are counted. Next: `gateway_commons.py`, which counts them;
`gateway_exchange.py`, which holds one while it runs.
"""

from collections import deque
from collections.abc import Callable

from serving.gateway_call import Call
from serving.gateway_commons import NEWEST, Room
from serving.gateway_exchange import RETRY_AFTER_S, Exchange
from serving.gateway_order import Order
from serving.openai_errors import ApiError, no_champion, overloaded


class _Waiting:
    """A request in the queue; the owner of its call until it gets a place."""

    def __init__(
        self, queue: "Admission", exchange: Exchange, call: Call, order: Order, turn_away: Callable[[ApiError | None], None], since_s: float
    ) -> None:
        self.queue, self.exchange, self.call, self.order, self.turn_away, self.since_s = queue, exchange, call, order, turn_away, since_s

    def caller_gone(self) -> None:
        """Leave the queue."""
        self.queue.abandon(self)
        self.turn_away(None)

    def caller_slow(self, slow: bool) -> None:
        """Nothing is being written yet."""


class Admission:
    """Exchanges run while there is room; others wait, each for at most `patience_s`; for an engine that is being exchanged, `change_s`."""

    def __init__(self, room: Room, patience_s: float, clock: Callable[[], float], change_s: float = 0.0) -> None:
        self._room, self._patience_s, self._clock = room, patience_s, clock
        self._change_s = max(change_s, patience_s)
        self._running: set[Exchange] = set()
        self._waiting: deque[_Waiting] = deque()
        self._pumping = False

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._running or self._waiting)

    def enter(self, exchange: Exchange, call: Call, order: Order, turn_away: Callable[[ApiError | None], None]) -> None:
        """Start `exchange` now or later, or turn it away."""
        backends = () if self._waiting else order()
        if backends and self._room.take(NEWEST):
            self._running.add(exchange)
            exchange.start(backends[0])
            return
        waiting = _Waiting(self, exchange, call, order, turn_away, self._clock())
        if self.patience_s(order) == 0 or not self._room.queue():
            turn_away(self._reason(waiting))
            return
        call.owner = waiting
        self._waiting.append(waiting)
        self.pump()

    def leave(self, exchange: Exchange) -> None:
        """An exchange has ended; its place is free."""
        self._running.discard(exchange)
        self._room.give_back()
        if self._waiting:
            self.pump()

    def abandon(self, waiting: _Waiting) -> None:
        """Its caller is gone."""
        self._remove(waiting)
        self.pump()

    def pump(self) -> None:
        """Start what can be started, in order; a request whose model has no slot does not hold up the others."""
        if self._pumping:
            return
        self._pumping, first_s = True, NEWEST
        for waiting in list(self._waiting):
            backends = waiting.order()
            if not backends:
                continue
            if not self._room.take(waiting.since_s):
                first_s = waiting.since_s
                break
            self._remove(waiting)
            self._running.add(waiting.exchange)
            waiting.exchange.start(backends[0])
        self._pumping = False
        self._room.waits_since(first_s)

    def _remove(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)
        self._room.leave_queue()

    def sweep(self, now_s: float) -> None:
        """End what runs or waits for too long."""
        for exchange in list(self._running):
            exchange.sweep(now_s)
        if not self._waiting:
            return
        for waiting in [each for each in self._waiting if now_s - each.since_s > self.patience_s(each.order)]:
            self._remove(waiting)
            waiting.turn_away(self._reason(waiting))
        self.pump()

    def patience_s(self, order: Order) -> float:
        """How long such a request may wait."""
        return self._change_s if order.changing else self._patience_s

    def _reason(self, waiting: _Waiting) -> ApiError:
        return overloaded(RETRY_AFTER_S) if waiting.order() else no_champion(waiting.order.model, RETRY_AFTER_S)
