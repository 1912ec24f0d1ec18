"""What one API key may use: requests a minute, tokens a minute, requests at a time. Token buckets, in this process's memory.

A bucket holds one minute's worth and fills steadily. How many tokens an answer takes is known only when it ends, so its
request reserves what it may take at most, and `Grant.settle` puts the true number in its place.
Knows nothing of HTTP or the registry. Next: `gateway.py`, which asks before it admits a request.
"""

import math
from collections.abc import Callable

from serving.keys import KeyInfo
from serving.openai_errors import rate_limited

_MINUTE_S = 60.0
_TRY_CONCURRENCY_AGAIN_S = 1


class Bucket:
    """Fills at `per_minute`, holds as many."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        self.per_minute, self._level, self._at_s = per_minute, float(per_minute), now_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` can be taken; 0 if it can be now. More than the bucket holds can be taken from a full one."""
        self._fill(now_s)
        missing = min(amount, self.per_minute) - self._level
        return max(0.0, missing * _MINUTE_S / self.per_minute)

    def take(self, amount: float, now_s: float) -> None:
        """Take `amount`, below zero if need be; a negative amount gives back."""
        self._fill(now_s)
        self._level = min(float(self.per_minute), self._level - amount)

    def _fill(self, now_s: float) -> None:
        self._level = min(float(self.per_minute), self._level + (now_s - self._at_s) * self.per_minute / _MINUTE_S)
        self._at_s = now_s


class _Use:
    """What one key uses now."""

    def __init__(self, key: KeyInfo, now_s: float) -> None:
        self.limits = limits_of(key)
        self.requests = Bucket(key.requests_per_minute, now_s) if key.requests_per_minute else None
        self.tokens = Bucket(key.tokens_per_minute, now_s) if key.tokens_per_minute else None
        self.at_a_time, self.most_at_a_time = 0, key.max_concurrent


class Grant:
    """One admitted request of a key. Give it back by `settle`, exactly once."""

    __slots__ = ("_clock", "_reserved", "_use")

    def __init__(self, use: _Use | None, reserved: int, clock: Callable[[], float]) -> None:
        self._use, self._reserved, self._clock = use, reserved, clock

    @property
    def counts_tokens(self) -> bool:
        """Whether somebody needs to know how many tokens the answer took."""
        return self._use is not None and self._use.tokens is not None

    def settle(self, tokens: int) -> None:
        """The request has ended and took so many tokens."""
        use, self._use = self._use, None
        if use is None:
            return
        use.at_a_time -= 1
        if use.tokens is not None:
            use.tokens.take(tokens - self._reserved, self._clock())


class KeyLimiter:
    """The use of every key that has limits. Keys without any cost nothing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        self._unlimited = Grant(None, 0, clock)

    def admit(self, key: KeyInfo, tokens: int) -> Grant:
        """Let a request in that may take `tokens` tokens.

        Raises:
            ApiError: 429 with the seconds after which it may pass.
        """
        if limits_of(key) == (None, None, None):
            return self._unlimited
        now_s, use = self._clock(), self._use_of(key)
        if use.most_at_a_time and use.at_a_time >= use.most_at_a_time:
            raise rate_limited(f"{use.most_at_a_time} requests at a time", _TRY_CONCURRENCY_AGAIN_S)
        for bucket, amount, unit in ((use.requests, 1, "requests"), (use.tokens, tokens, "tokens")):
            if bucket is not None and (wait_s := bucket.wait_s(amount, now_s)) > 0:
                raise rate_limited(f"{bucket.per_minute} {unit} a minute", math.ceil(wait_s))
        if use.requests is not None:
            use.requests.take(1, now_s)
        if use.tokens is not None:
            use.tokens.take(tokens, now_s)
        use.at_a_time += 1
        return Grant(use, tokens, self._clock)

    def _use_of(self, key: KeyInfo) -> _Use:
        use = self._uses.get(key.id)
        if use is None or use.limits != limits_of(key):
            use = self._uses[key.id] = _Use(key, self._clock())
        return use

    def forget_all_but(self, key_ids: frozenset[str]) -> None:
        """Drop the counts of keys that are gone."""
        self._uses = {key_id: use for key_id, use in self._uses.items() if key_id in key_ids}


def limits_of(key: KeyInfo) -> tuple[int | None, int | None, int | None]:
    """Requests a minute, tokens a minute, requests at a time; None where there is no limit."""
    return key.requests_per_minute, key.tokens_per_minute, key.max_concurrent
