"""Postal addresses down to the house, in English and Chinese.

English: a number, a street name and its type, then flat, town, state and post code as far as they follow; or a PO box.
Chinese: a road and a house number, extended left to the province or to the words that announce an address, and right to the
room. A town alone is no address. Whose address it is cannot be told: a hospital's own goes on the allow-list.
Every extension is bounded. Next: `privacy_names_en.py`.
"""

import re
from collections.abc import Iterator

from training.data.privacy_spans import LIKELY, STATED, Span, words_before

_PLAIN_TYPES = r"Street|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Highway|Hwy|Parkway|Pkwy|Terrace|Crescent|Mews"
# These end many a phrase that is no street ("5 Blood Drive", "3 Best Way"): they need a flat, town or post code behind them.
_OTHER_TYPES = r"St|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Way|Circle|Cir|Close|Trail|Row|Gardens|Grove|Hill|Walk|Park"
_FLAT_WORD = r"(?:Apt|Apartment|Unit|Suite|Ste|Flat|Floor|Room|Rm|Studio)\.? ?#?|#"
_POST_CODE = r"(?:[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}|[0-9]{5}(?:-[0-9]{4})?)\b"
_TOWN = r"(?:[A-Z][A-Za-z'.-]{1,20}(?: [A-Z][A-Za-z'.-]{1,20}){0,2})"
_STREET = re.compile(
    r"(?<![\w.,/-])[0-9]{1,5}[A-Za-z]?(?:[-/][0-9]{1,4})?,? (?:[NSEW]{1,2}\.? |(?:North|South|East|West) )?"
    r"(?:(?:[A-Z][\w'’.-]{0,20}|[0-9]{1,3}(?:st|nd|rd|th)) ){1,4}?"
    rf"(?:(?P<plain>{_PLAIN_TYPES})|(?P<other>{_OTHER_TYPES}))\b\.?(?: [NSEW]{{1,2}}\b)?"
)
# Whatever the street is called: from a house or flat number through capitalised words to a state and ZIP code, or a British post code.
_CODE_AT_END = re.compile(r"[A-Z]{2},? [0-9]{5}(?:-[0-9]{4})?\b|[A-Z]{1,2}[0-9][0-9A-Z]? [0-9][A-Z]{2}\b")
_TO_THE_CODE = re.compile(rf"(?<![\w.-])(?:(?:PSC|{_FLAT_WORD})\s?)?[0-9]{{1,5}}[A-Za-z]?(?:,? [A-Z0-9#][\w'’.#-]{{0,20}}){{1,11}},? $")
_REST = re.compile(
    rf"(?P<flat>,? (?:{_FLAT_WORD})[A-Za-z0-9-]{{1,6}})?"
    rf"(?P<town>,? {_TOWN}?,? ?(?:[A-Z]{{2}},? )?{_POST_CODE}|, {_TOWN}, [A-Z]{{2}}\b(?:,? {_POST_CODE})?)?"
)
_PO_BOX = re.compile(r"\bP\.? ?O\.? Box [0-9]{1,6}\b")
_YEAR = re.compile("(?:19|20)[0-9]{2} ")  # the 1929 Wall Street crash
_ADDRESS_WORDS = re.compile(r"address|live at|lives at|living at|moved to|reside|home is|deliver|ship|mail|send|resid")

_DIGIT = re.compile("[0-9]")
_HOUSE_ZH = re.compile("[号弄组座栋幢]")
_HAN = "\u4e00-\u9fff"
_NUMBER_ZH = "(?:[0-9]{1,5}(?:[-—之][0-9]{1,4})?|[一二三四五六七八九十百]{1,5})"
_ROAD = re.compile(
    rf"(?:路|街|大道|道|巷|弄|胡同|里弄|条|[东西南北中一二三四五六七八九十]段|新村|小区|社区|花园|公寓|村|庄|屯|"
    rf"组)(?:[{_HAN}]{{0,4}}段)?\s?"
    rf"(?:{_NUMBER_ZH}\s?(?:号|弄|组)(?!线|楼层|床|诊|门诊|病|公交|出口)|[A-Za-z0-9]{{1,4}}\s?(?:座|栋|幢|号楼))"
)
_ROOM_ZH = re.compile(
    rf"(?:\s?(?:(?:[{_HAN}]{{2,10}}(?:大厦|广场|公寓|小区|花园|中心|家园|新村|苑|园|城|府|院|宿舍))|院|{_NUMBER_ZH}组)?"
    rf"[\s,-]?(?:[A-Za-z0-9甲乙丙丁一二三四五六七八九十]{{1,5}}\s?(?:号楼|栋|幢|座|单元|层|楼|室|号|房|户|门)){{0,2}}){{0,3}}"
    r"(?:(?<=[座栋幢楼元])[0-9]{2,5}(?:室|号|房)?)?"
)
_PLACE_ZH = re.compile(
    "(?:北京|上海|天津|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|"
    "甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门)"
    rf"|[{_HAN}]{{2,4}}?(?:省|自治区|市|自治州|县|区|镇|乡)"
)
_ANNOUNCED_ZH = re.compile(
    "(?:家住|居住在|居住于|居住地|住在|住址|现住|住|地址|寄到|寄往|寄至|送到|送至|位于|户籍|籍贯|来自|我家在|家在|搬到|前往|到|在|"
    "于|至|是|为|：|:)(?:了|是|为|在)?"
)
_ADDRESS_WORDS_ZH = re.compile("住|址|寄|送|快递|收件|搬|家在|户籍")
_HAN_TAIL = re.compile(rf"[{_HAN}0-9A-Za-z]{{1,36}}$")


def find_addresses(text: str) -> Iterator[Span]:
    """Street addresses, PO boxes and Chinese house addresses."""
    if _DIGIT.search(text):
        for match in _STREET.finditer(text):
            yield from _street(text, match)
        last = 0
        for match in _CODE_AT_END.finditer(text):
            yield from _up_to_code(text, match, last)
            last = match.end()
        for match in _PO_BOX.finditer(text):
            yield Span(match.start(), match.end() + _rest(text, match.end())[0], "address", STATED)
    if not text.isascii() and _HOUSE_ZH.search(text):
        for match in _ROAD.finditer(text):
            yield from _chinese(text, match)


def _up_to_code(text: str, code: re.Match[str], last: int) -> Iterator[Span]:
    """Back to the house number, but not into the address before."""
    reach = max(last, code.start() - 110)
    if match := _TO_THE_CODE.search(text[reach : code.start()]):
        yield Span(reach + match.start(), code.end(), "address", STATED)


def _street(text: str, match: re.Match[str]) -> Iterator[Span]:
    length, located = _rest(text, match.end())
    stated = located or _ADDRESS_WORDS.search(words_before(text, match.start(), 32)) is not None
    if stated or (match["plain"] and not _YEAR.match(match[0])):
        yield Span(match.start(), match.end() + length, "address", STATED if stated else LIKELY)


def _rest(text: str, end: int) -> tuple[int, bool]:
    """Length of flat, town and post code after the street, and whether there is any."""
    match = _REST.match(text, end)
    return (match.end() - end, bool(match["flat"] or match["town"])) if match else (0, False)


def _chinese(text: str, road: re.Match[str]) -> Iterator[Span]:
    room = _ROOM_ZH.match(text, road.end())
    end = room.end() if room else road.end()
    start, has_place = _chinese_start(text, road.start())
    stated = _ADDRESS_WORDS_ZH.search(words_before(text, start, 10)) is not None
    if has_place or stated or end > road.end():
        yield Span(start, end, "address", STATED if has_place else LIKELY)


def _chinese_start(text: str, road: int) -> tuple[int, bool]:
    """Where the address begins, and whether it names a province, town or district before the road."""
    tail = _HAN_TAIL.search(text[max(0, road - 36) : road])
    begin = road - len(tail[0]) if tail else road
    for announced in _ANNOUNCED_ZH.finditer(text, begin, road):
        if _PLACE_ZH.match(text, announced.end(), road) or announced.end() < road:
            begin = announced.end()
            break
    if place := _PLACE_ZH.search(text, begin, road):
        known = place.start() if place[0] in text[begin:road] and len(place[0]) in (2, 3) and place[0][-1] not in "省市县区镇乡" else begin
        return (known if known > begin else place.start()), True
    return max(begin, road - 6), False
