"""Units, and numbers written as words, in English and Chinese: data for `quantities.py`, as it stands in folded text."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """`value * factor + offset` is the value in the dimension's base unit. `even`: converts without rounding."""

    dimension: str
    factor: float
    offset: float = 0.0
    even: bool = True

    def to_base(self, value: float) -> float:
        """The value in the dimension's base unit."""
        return value * self.factor + self.offset


_DAY = 86_400.0
_TABLE: tuple[tuple[Unit, str], ...] = (
    (Unit("temperature", 1.0), "°c|degrees celsius|degree celsius|degrees centigrade|celsius|摄氏度|c|°|degrees|degree|度"),
    (Unit("temperature", 5 / 9, -160 / 9, even=False), "°f|degrees fahrenheit|degree fahrenheit|fahrenheit|华氏度|f"),
    (Unit("mass", 1.0), "g|gram|grams|gramme|grammes|克"),
    (Unit("mass", 1e-3), "mg|milligram|milligrams|毫克"),
    (Unit("mass", 1e-6), "μg|mcg|ug|microgram|micrograms|微克"),
    (Unit("mass", 1e3), "kg|kilo|kilos|kilogram|kilograms|千克|公斤"),
    (Unit("mass", 500.0), "斤"),
    (Unit("mass", 453.59237, even=False), "lb|lbs|pound|pounds|磅"),
    (Unit("mass", 28.349523125, even=False), "oz|ounce|ounces|盎司"),
    (Unit("volume", 1.0), "l|liter|liters|litre|litres|升|公升"),
    (Unit("volume", 1e-3), "ml|cc|milliliter|milliliters|millilitre|millilitres|毫升"),
    (Unit("volume", 0.005), "tsp|teaspoon|teaspoons|茶匙"),
    (Unit("volume", 0.015), "tbsp|tablespoon|tablespoons|汤匙"),
    (Unit("time", 1.0), "s|sec|second|seconds|秒|秒钟"),
    (Unit("time", 60.0), "min|mins|minute|minutes|分钟"),
    (Unit("time", 3600.0), "h|hr|hrs|hour|hours|小时|个小时|钟头|个钟头"),
    (Unit("time", _DAY), "d|day|days|天|日"),
    (Unit("time", 7 * _DAY), "week|weeks|周|星期|个星期|礼拜"),
    (Unit("time", 30 * _DAY), "month|months|个月"),
    (Unit("time", 365 * _DAY), "year|years|年"),
    (Unit("length", 1.0), "m|meter|meters|metre|metres|米|公尺"),
    (Unit("length", 0.01), "cm|centimeter|centimeters|centimetre|centimetres|厘米|公分"),
    (Unit("length", 0.001), "mm|millimeter|millimeters|millimetre|millimetres|毫米"),
    (Unit("length", 1000.0), "km|kilometer|kilometers|kilometre|kilometres|千米|公里"),
    (Unit("length", 0.0254, even=False), "inch|inches|英寸"),
    (Unit("length", 0.3048, even=False), "ft|foot|feet|英尺"),
    (Unit("length", 1609.344, even=False), "mile|miles|英里"),
    (Unit("pressure", 1.0), "mmhg|毫米汞柱"),
    (Unit("pressure", 7.50061683, even=False), "kpa|千帕"),
    (Unit("glucose", 1.0), "mmol/l|毫摩尔每升"),
    (Unit("glucose", 1 / 18.016, even=False), "mg/dl|毫克每分升"),
    (Unit("share", 0.01), "%|percent|per cent"),
    (Unit("tablets", 1.0), "tablet|tablets|pill|pills|capsule|capsules|片|粒|颗"),
    (Unit("times", 1.0), "times|次"),
    (Unit("drops", 1.0), "drop|drops|滴"),
)
UNITS: dict[str, Unit] = {name: unit for unit, names in _TABLE for name in names.split("|")}

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: value for value, word in enumerate(_ONES.split())} | {word: 20 + 10 * place for place, word in enumerate(_TENS.split())}
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
ENGLISH_NUMBER = (
    rf"half an?|an?(?= (?:hour|day|week|month|year|gram|tablet|pill)\b)|(?:{_WORD})(?:[ -](?:and )?(?:{_WORD}|hundred|thousand))*(?![a-z])"
)

_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_POWERS = {"十": 10, "百": 100, "千": 1000, "万": 10_000}
CHINESE_NUMBER = "[零〇一二两三四五六七八九十百千万]+(?:点[零〇一二三四五六七八九]+)?|半"


def read_english(written: str) -> float | None:
    """'thirty-eight' is 38, 'one hundred and four' 104."""
    if written.startswith("half"):
        return 0.5
    if written in ("a", "an"):
        return 1.0
    total = current = 0
    for word in re.split(r"[ -]+", written):
        if word == "hundred":
            current *= 100
        elif word == "thousand":
            total, current = total + current * 1000, 0
        elif word != "and":
            current += _WORDS[word]
    return float(total + current)


def read_chinese(written: str) -> float | None:
    """三十八点五 is 38.5, 一二零 is 120, 半 is 0.5."""
    if written == "半":
        return 0.5
    whole, _, decimals = written.partition("点")
    fraction: float = sum(_DIGITS[digit] / 10.0**place for place, digit in enumerate(decimals, start=1))
    if not any(character in _POWERS for character in whole):
        return float("".join(str(_DIGITS[digit]) for digit in whole)) + fraction
    total = section = digit = 0
    for character in whole:
        if character in _DIGITS:
            digit = _DIGITS[character]
        elif character == "万":
            total, section, digit = (total + section + digit) * 10_000, 0, 0
        else:
            section, digit = section + (digit or 1) * _POWERS[character], 0
    return total + section + digit + fraction
