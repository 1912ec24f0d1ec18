"""Telephone numbers: shapes that only a telephone number has, and any digits that the words before call one.

Validity is asked of `phonenumbers`, but only about a candidate: its own matcher takes 40 µs for a short line that holds
nothing. Numbers that belong to nobody (toll-free, shared-cost, emergency and service numbers) are left alone.
Knows nothing of other numbers; where two kinds claim the same digits, `privacy_spans.py` decides. Next: `privacy_network.py`.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from training.data.privacy_spans import LIKELY, STATED, Span, words_before

_START, _END = r"(?<![0-9A-Za-z.,:/_+-])", r"(?![0-9A-Za-z%]|[.,/:-][0-9])"
_SHAPES = {
    "CN": re.compile(
        rf"{_START}(?:(?:\+|00)?86[ -]?)?"
        rf"(?:1[3-9][0-9](?:[ -]?[0-9]{{4}}){{2}}|\(?0[1-9][0-9]{{1,2}}(?:\) ?|[ -])[2-9][0-9]{{2,3}} ?[0-9]{{4}}){_END}"
    ),
    "US": re.compile(_START + r"(?:\+?1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}([ .-]))[2-9][0-9]{2}(?(1)\1|[ .-])[0-9]{4}" + _END),
    "GB": re.compile(_START + r"\(?0[1-9][0-9]{1,4}\)?[ -][0-9]{3,4}(?:[ -]?[0-9]{3,4})?" + _END),
}
_ELSEWHERE = re.compile(_START + r"\(?[0-9]{1,5}\)?(?:[ .-][0-9]{2,5}){1,4}" + _END)  # other regions: groups of digits
_INTERNATIONAL = re.compile(r"(?<![0-9A-Za-z+])\+[1-9](?:[ .()-]{0,2}[0-9]){7,14}" + _END)
_WORDS = (
    r"(?<![A-Za-z])(?:[Pp]hone|PHONE|[Tt]el|TEL|[Tt]elephone|[Mm]obile|[Cc]ell|[Cc]all|[Ff]ax|[Ww]hats[Aa]pp|[Tt]ext|[Dd]ial|[Rr]each|[Vv]oicemail|"
    r"[Mm]y number)(?![A-Za-z])|电话|手机|手机号|联系方式|联系人|致电|拨打|来电|座机|短信|号码是|新号"
)
_STATED = re.compile(rf"(?:{_WORDS})[^0-9+(\n。；;]{{0,16}}([+(]{{0,2}}[0-9](?:[ .()-]{{0,2}}[0-9]){{6,14}}){_END}")
_DATE = re.compile(
    r"(?:19|20)[0-9]{2}(?:[-./][0-9]{1,2}[-./][0-9]{1,2}|[- ]{1,3}(?:19|20)[0-9]{2}|[01][0-9][0-3][0-9])|"
    r"[0-9]{1,2}[-./][0-9]{1,2}[-./][0-9]{2,4}"
)
_OTHER_WORDS = re.compile(
    "订单|单号|批号|准字|编号|序列|条码|编码|型号|"
    "order|track|serial|isbn|issn|pmid|doi|ndc|lot |batch|code|version|invoice|nct|cas |loinc|catalog"
)
_HAN = re.compile("[\u4e00-\u9fff]")
_UNIT = re.compile(r"\s?(?:iu\b|m?g\b|ml\b|u/l|mmol|元|单位|×|\*10|cells?\b|/[a-zμ])")


def find_phones(text: str, regions: Sequence[str]) -> Iterator[Span]:
    """Numbers written nationally in one of the regions, and international ones."""
    yield from _international(text)
    yield from _stated(text, regions)
    for region in regions:
        yield from _shaped(text, region)


def _international(text: str) -> Iterator[Span]:
    for match in _INTERNATIONAL.finditer(text):
        if _nature(match[0], "ZZ") in ("personal", "possible"):
            yield Span(*match.span(), "phone", STATED)


def _stated(text: str, regions: Sequence[str]) -> Iterator[Span]:
    for match in _STATED.finditer(text):
        natures = {_nature(match[1], region) for region in regions}
        if "service" not in natures and not _DATE.fullmatch(match[1]):
            start = match.start(1) + (match[1].startswith("(") and ")" not in match[1])
            yield Span(start, match.end(1), "phone", STATED)


def _shaped(text: str, region: str) -> Iterator[Span]:
    chinese = _HAN.search(text) is not None
    for match in _SHAPES.get(region, _ELSEWHERE).finditer(text):
        personal = _is_american(match[0]) if region == "US" else _nature(match[0], region) == "personal"
        if region == "CN" and not chinese and _nature("+" + match[0], "ZZ") == "service":
            continue  # 18003182596 in an English text is toll-free in America, not a mobile in China
        if personal and not _DATE.fullmatch(match[0]) and not _is_something_else(text, match.start(), match.end()):
            yield Span(*match.span(), "phone", LIKELY)


def _is_american(number: str) -> bool:
    """The shape is telling, even with an area code that is not in use; but a Chinese service number has it too."""
    nature = _nature(number, "US")
    return nature == "personal" or (nature == "possible" and _nature(number, "CN") != "service")


def _is_something_else(text: str, start: int, end: int) -> bool:
    return _OTHER_WORDS.search(words_before(text, start, 16)) is not None or _UNIT.match(text[end : end + 8].lower()) is not None


@lru_cache(maxsize=4096)
def _nature(number: str, region: str) -> str:
    """personal | service | possible | none. Numbers reserved for fiction count as personal: they stand for one."""
    import phonenumbers  # here, as it takes a fraction of a second to load, which rows without numbers never need
    from phonenumbers import PhoneNumberType as Type

    if region == "GB" and number.lstrip("(")[0] not in "+0":
        return "none"  # the library would take the area code of another country for a British service number
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return "none"
    if not phonenumbers.is_valid_number(parsed):
        fictional = parsed.country_code == 44 and str(parsed.national_number).startswith("7700900")
        return "personal" if fictional else "possible" if phonenumbers.is_possible_number(parsed) else "none"
    service = (Type.TOLL_FREE, Type.PREMIUM_RATE, Type.SHARED_COST, Type.UAN, Type.VOICEMAIL)
    return "service" if phonenumbers.number_type(parsed) in service else "personal"
