"""The four things that a condition can say; apart from the records, so that a gateway need not load what judging needs.

Next: `records.py`, `gate.py`.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """What a condition, or a whole verdict, says. Only PASS promotes."""

    PASS = "PASS"  # noqa: S105  # a verdict, not a password
    INCONCLUSIVE = "INCONCLUSIVE"
    FAIL = "FAIL"
    ERROR = "ERROR"
