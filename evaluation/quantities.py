"""Numbers with units in folded text: 39 °C, 39度, 三十九度, 102.2 °F and "thirty-nine degrees" are one temperature.

A rule asks for a quantity in braces: `{38 °C}` (that value, in any unit), `{> 4 g}`, `{4.1..100 g}`. Values of one unit are compared
exactly; Fahrenheit, pounds and other units that never convert evenly may differ by half of their last digit. A bare "degrees" or 度 is
Celsius below 50 and Fahrenheit above. Knows nothing of phrases and negation. Next: `phrases.py`.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from evaluation.quantity_units import CHINESE_NUMBER, ENGLISH_NUMBER, UNITS, Unit, read_chinese, read_english

_ARABIC = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_NAMES = "|".join(
    re.escape(name) + (r"(?![a-z0-9])" if name[-1].isascii() and name[-1].isalnum() else "")
    for name in sorted(UNITS, key=len, reverse=True)
)
_QUANTITY = re.compile(
    rf"(?<![\d.])(?P<scale>摄氏|华氏|百分之)?(?:(?P<arabic>{_ARABIC})|(?P<chinese>{CHINESE_NUMBER})|(?<![a-z])(?P<english>{ENGLISH_NUMBER}))"
    rf"(?:[ -]?(?P<unit>{_NAMES})(?P<rest>半|[一二三四五六七八九](?![十百]))?)?"
)
_WANTED = re.compile(rf"(?P<sign>>=|<=|>|<|)\s*(?P<low>{_ARABIC})(?:\.\.(?P<high>{_ARABIC}))?\s*(?P<unit>\S.*)")
_SCALES = {"摄氏": "摄氏度", "华氏": "华氏度", "百分之": "%"}
_BARE_DEGREES, _WARMEST_CELSIUS = "度", 50.0
_ALIKE = 1e-9


@dataclass(frozen=True)
class Quantity:
    """A value in its dimension's base unit. `slack`: how far another unit's value may be off and still be the same."""

    start: int
    end: int
    value: float
    unit: Unit
    slack: float


@dataclass(frozen=True)
class Wanted:
    """What a rule asks for, in the base unit; `low` and `high` may be infinite, and are equal for one value."""

    low: float
    high: float
    unit: Unit
    open_low: bool = False
    open_high: bool = False

    def holds(self, found: Quantity) -> bool:
        """Whether a quantity in the text is what is asked for."""
        if found.unit.dimension != self.unit.dimension:
            return False
        slack = found.slack if found.unit != self.unit and not (found.unit.even and self.unit.even) else 0.0
        if self.low == self.high:
            return abs(found.value - self.low) <= max(slack, _ALIKE * max(1.0, abs(self.low)))
        above = found.value > self.low + slack if self.open_low else found.value >= self.low - slack - _ALIKE
        below = found.value < self.high - slack if self.open_high else found.value <= self.high + slack + _ALIKE
        return above and below


def read_wanted(written: str) -> Wanted:
    """The quantity between the braces of a rule.

    Raises:
        ValueError: it is no number with a known unit.
    """
    match = _WANTED.fullmatch(written.strip())
    unit = UNITS.get(match["unit"].strip()) if match else None
    if match is None or unit is None:
        raise ValueError(f"'{{{written}}}' is no quantity; write {{38 °C}}, {{> 4 g}} or {{4.1..100 g}} with one of the units {_known()}")
    low = unit.to_base(_number(match["low"]))
    if match["high"]:
        return Wanted(low, unit.to_base(_number(match["high"])), unit)
    sign = match["sign"]
    if not sign:
        return Wanted(low, low, unit)
    if sign[0] == ">":
        return Wanted(low, math.inf, unit, open_low=sign == ">")
    return Wanted(-math.inf, low, unit, open_high=sign == "<")


@lru_cache(maxsize=256)
def quantities_in(text: str) -> tuple[Quantity, ...]:
    """Every number with a unit in folded text."""
    return tuple(_read_all(text))


def _read_all(text: str) -> Iterator[Quantity]:
    for match in _QUANTITY.finditer(text):
        name = _SCALES.get(match["scale"] or "", match["unit"])
        value, last_digit = _value(match)
        if name is None or value is None:
            continue
        if match["rest"]:  # 三十八度五 is 38.5
            value, last_digit = value + (0.5 if match["rest"] == "半" else (read_chinese(match["rest"]) or 0) / 10), 0.1
        if UNITS[name] is UNITS[_BARE_DEGREES] and value > _WARMEST_CELSIUS and not match["scale"]:
            name = "华氏度"
        unit = UNITS[name]
        slack = abs(unit.to_base(value + last_digit / 2) - unit.to_base(value))
        yield Quantity(match.start(), match.end(), unit.to_base(value), unit, slack)


def _value(match: re.Match[str]) -> tuple[float | None, float]:
    """The number and the worth of its last digit."""
    if match["arabic"]:
        _, _, decimals = match["arabic"].partition(".")
        return _number(match["arabic"]), 10.0 ** -len(decimals)
    return (read_chinese(match["chinese"]) if match["chinese"] else read_english(match["english"])), 1.0


def _number(written: str) -> float:
    return float(written.replace(",", ""))


def _known() -> str:
    return ", ".join(name for name in UNITS if name.isascii())[:200]
