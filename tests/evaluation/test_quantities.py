"""One quantity in many spellings, and what is another one."""

import pytest

from evaluation.negation import parse
from evaluation.phrases import compile_phrase, find

SAME = [
    ("{39 °C}", "39 °C"),
    ("{39 °C}", "39度"),
    ("{39 °C}", "三十九度"),
    ("{39 °C}", "102.2 °F"),
    ("{39 °C}", "102 °F"),
    ("{39 °C}", "３９℃"),
    ("{39 °C}", "thirty-nine degrees"),
    ("{39 °C}", "39.0 degrees Celsius"),
    ("{39 °C}", "华氏102.2度"),
    ("{38.5 °C}", "三十八度五"),
    ("{38.5 °C}", "三十八度半"),
    ("{38.5 °C}", "38.5 攝氏度"),
    ("{4 g}", "4000 mg"),
    ("{4 g}", "four grams"),
    ("{4 g}", "4,000 mg"),
    ("{4 g}", "四克"),
    ("{30 days}", "thirty days"),
    ("{7 天}", "一周"),
    ("{7 天}", "one week"),
    ("{2 h}", "120分钟"),
    ("{> 4 g}", "4.5 g"),
    ("{>= 4 g}", "4 g"),
    ("{< 2 h}", "an hour"),
    ("{4.1..100 g}", "6克"),
    ("{5 %}", "百分之五"),
    ("{120 mmHg}", "120 mmHg"),
    ("{7 mmol/l}", "126 mg/dl"),
    ("above {38 °C}", "above 38 °C"),
]
OTHER = [
    ("{39 °C}", "39 °F"),
    ("{39 °C}", "38.9 °C"),
    ("{39 °C}", "39 kg"),
    ("{39 °C}", "139 °C"),
    ("{4 g}", "4 kg"),
    ("{4 g}", "4 mg"),
    ("{30 days}", "30 hours"),
    ("{> 4 g}", "4 g"),
    ("{> 4 g}", "3999 mg"),
    ("{4.1..100 g}", "50 kg"),
    ("{38 °C}", "38"),
    ("{7 天}", "7小时"),
    ("above {38 °C}", "above all 38 °C"),
]


def found(phrase: str, text: str) -> bool:
    parsed = parse(text)
    return next(find(compile_phrase(phrase), parsed.text, parsed.sentences), None) is not None


@pytest.mark.parametrize(("phrase", "text"), SAME)
def test_the_same_quantity_is_found(phrase: str, text: str) -> None:
    assert found(phrase, f"x {text}, y")


@pytest.mark.parametrize(("phrase", "text"), OTHER)
def test_another_quantity_is_not(phrase: str, text: str) -> None:
    assert not found(phrase, f"x {text}, y")


@pytest.mark.parametrize("written", ["{39 furlongs}", "{hot}", "{}", "{39}"])
def test_what_is_no_quantity_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        compile_phrase(written)
