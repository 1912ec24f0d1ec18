"""What one API key may use: requests a minute, tokens a minute, requests at a time. Token buckets.

A bucket holds one minute's worth and fills steadily. How many tokens an answer takes is known only when it ends, so its
request reserves what it may take at most, and `Grant.settle` puts the true number in its place.
Knows nothing of HTTP or the registry, nor of other processes. Next: `gateway.py`, which asks before it admits a request;
`gateway_commons.py`, where the buckets are those of all workers.
"""

import math
from collections.abc import Callable
from typing import Protocol

from serving.keys import KeyInfo
from serving.openai_errors import rate_limited

_MINUTE_S = 60.0
_TRY_CONCURRENCY_AGAIN_S = 1


class Bucket:
    """Fills at `per_minute`, holds as many."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        self.per_minute, self.level, self.at_s = per_minute, float(per_minute), now_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` can be taken; 0 if it can be now. More than the bucket holds can be taken from a full one."""
        self._fill(now_s)
        missing = min(amount, self.per_minute) - self.level
        return max(0.0, missing * _MINUTE_S / self.per_minute)

    def take(self, amount: float, now_s: float) -> None:
        """Take `amount`, below zero if need be; a negative amount gives back."""
        self._fill(now_s)
        self.level = min(float(self.per_minute), self.level - amount)

    def _fill(self, now_s: float) -> None:
        self.level = min(float(self.per_minute), self.level + (now_s - self.at_s) * self.per_minute / _MINUTE_S)
        self.at_s = now_s


class Use:
    """What one key uses now. It is read and changed within `with use:`."""

    def __init__(self, key: KeyInfo, now_s: float) -> None:
        self.limits = limits_of(key)
        self.requests = Bucket(key.requests_per_minute, now_s) if key.requests_per_minute else None
        self.tokens = Bucket(key.tokens_per_minute, now_s) if key.tokens_per_minute else None
        self.at_a_time, self.most_at_a_time = 0, key.max_concurrent

    def __enter__(self) -> None:
        """Nobody else counts here."""

    def __exit__(self, *_: object) -> None:
        """Nobody else counts here."""

    def admit(self, tokens: int, now_s: float) -> None:
        """Count a request that may take `tokens` tokens.

        Raises:
            ApiError: 429 with the seconds after which it may pass; nothing was counted.
        """
        if self.most_at_a_time and self.at_a_time >= self.most_at_a_time:
            raise rate_limited(f"{self.most_at_a_time} requests at a time", _TRY_CONCURRENCY_AGAIN_S)
        for bucket, amount, unit in ((self.requests, 1, "requests"), (self.tokens, tokens, "tokens")):
            if bucket is not None and (wait_s := bucket.wait_s(amount, now_s)) > 0:
                raise rate_limited(f"{bucket.per_minute} {unit} a minute", math.ceil(wait_s))
        if self.requests is not None:
            self.requests.take(1, now_s)
        if self.tokens is not None:
            self.tokens.take(tokens, now_s)
        self.at_a_time += 1

    def settle(self, tokens: int, now_s: float) -> None:
        """A request has ended, and took `tokens` more tokens than it had reserved."""
        self.at_a_time -= 1
        if self.tokens is not None:
            self.tokens.take(tokens, now_s)


class Uses(Protocol):
    """The use of every key that has limits."""

    def of(self, key: KeyInfo, now_s: float) -> Use:
        """What this key uses."""
        ...

    def forget_all_but(self, key_ids: frozenset[str]) -> None:
        """Drop the counts of keys that are gone."""
        ...


class UsesHere:
    """Counted by this process alone."""

    def __init__(self) -> None:
        self._of: dict[str, Use] = {}

    def of(self, key: KeyInfo, now_s: float) -> Use:
        """See `Uses`; a key whose limits are changed begins anew."""
        use = self._of.get(key.id)
        if use is None or use.limits != limits_of(key):
            use = self._of[key.id] = Use(key, now_s)
        return use

    def forget_all_but(self, key_ids: frozenset[str]) -> None:
        """See `Uses`."""
        self._of = {key_id: use for key_id, use in self._of.items() if key_id in key_ids}


class Grant:
    """One admitted request of a key. Give it back by `settle`, exactly once."""

    __slots__ = ("_clock", "_reserved", "_use")

    def __init__(self, use: Use | None, reserved: int, clock: Callable[[], float]) -> None:
        self._use, self._reserved, self._clock = use, reserved, clock

    @property
    def counts_tokens(self) -> bool:
        """Whether somebody needs to know how many tokens the answer took."""
        return self._use is not None and self._use.tokens is not None

    def settle(self, tokens: int) -> None:
        """The request has ended and took so many tokens."""
        use, self._use = self._use, None
        if use is not None:
            with use:
                use.settle(tokens - self._reserved, self._clock())


class KeyLimiter:
    """Asks what a key uses, and grants. Keys without any limit cost nothing."""

    def __init__(self, clock: Callable[[], float], uses: Uses | None = None) -> None:
        self._clock = clock
        self._uses = uses or UsesHere()
        self._unlimited = Grant(None, 0, clock)

    def admit(self, key: KeyInfo, tokens: int) -> Grant:
        """Let a request in that may take `tokens` tokens.

        Raises:
            ApiError: 429 with the seconds after which it may pass.
        """
        if limits_of(key) == (None, None, None):
            return self._unlimited
        now_s = self._clock()
        use = self._uses.of(key, now_s)
        with use:
            use.admit(tokens, now_s)
        return Grant(use, tokens, self._clock)

    def forget_all_but(self, key_ids: frozenset[str]) -> None:
        """Drop the counts of keys that are gone."""
        self._uses.forget_all_but(key_ids)


def limits_of(key: KeyInfo) -> tuple[int | None, int | None, int | None]:
    """Requests a minute, tokens a minute, requests at a time; None where there is no limit."""
    return key.requests_per_minute, key.tokens_per_minute, key.max_concurrent
