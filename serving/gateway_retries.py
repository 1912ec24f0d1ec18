"""How much may be asked twice: a share of what is asked at all, so that a failing slot does not double the load on the other.

Pure arithmetic. Next: `gateway_exchange.py`, which spends it.
"""

_RESERVE = 10.0


class RetryBudget:
    """Every request puts `ratio` of a retry in, up to a reserve; every retry takes one out.

    The reserve is ten, of all workers together; `share` is this one's, but at least one, or it could never retry.
    """

    def __init__(self, ratio: float, share: float = 1.0) -> None:
        self._reserve = max(1.0, _RESERVE * share)
        self._ratio, self._left = ratio, self._reserve if ratio > 0 else 0.0

    def asked(self) -> None:
        """A request was sent for the first time."""
        self._left = min(self._reserve, self._left + self._ratio)

    def may(self) -> bool:
        """Whether one may be sent again; if so, it is paid for."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
