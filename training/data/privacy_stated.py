"""Values that only their label tells: record and passport numbers, dates of birth, chat accounts, number plates.

A label is followed by little (a colon, `number`, `is`, 号码) and then by a value of the right shape; a bare date or a bare
number is none of these. Knows nothing of checksums. Next: `privacy_addresses.py`.
"""

import re
from collections.abc import Iterator

from training.data.privacy_spans import CHECKED, LIKELY, STATED, Span, words_before

_GAP = r"[\s:：#,，.()（）=-]{0,4}(?:(?:[Nn]umber|[Nn]o|NO|[Nn]um|ID|id|[Ii]s|was|号码|号|编号|为|是)[\s:：#,，.()（）=-]{0,4}){0,3}"
_END = r"(?![0-9A-Za-z])"

_RECORD_LABEL = (
    r"(?<![A-Za-z])(?:MRN|mrn|[Mm]edical [Rr]ecord|MEDICAL RECORD|[Hh]ospital (?=[Nn]o|[Nn]um|ID)|"
    r"[Pp]atient (?=ID|[Ii]d\b|[Nn]o\b|[Nn]umber)|[Cc]hart (?=[Nn]o|[Nn]um|#|ID)|"
    r"(?:[Mm]ember|[Ii]nsurance|[Pp]olicy|[Mm]edicare|[Aa]dmission) (?=ID|[Nn]o|[Nn]umber))|"
    "(?:住院|病历|病案|门诊|就诊|医保|社保|社会保障|体检|检查|档案|诊疗|挂号单?)(?=卡号|编号|号|卡)|登记号"
)
_RECORD = re.compile(rf"(?:{_RECORD_LABEL})(?:卡号|卡)?{_GAP}([A-Za-z]{{0,4}}-?[0-9][A-Za-z0-9-]{{3,19}}){_END}")
_PASSPORT = re.compile(
    rf"(?:(?<![A-Za-z])[Pp]assport|PASSPORT|护照)(?:\s?\([A-Z]{{2,3}}\))?{_GAP}([A-Z][A-Z0-9]{{7,8}}|[A-Z]{{1,2}}[0-9]{{6,8}}|[0-9]{{8,9}}){_END}"
)

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|"
    r"Dec(?:ember)?)\.?"
)
_DAY = (
    r"(?:[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.](?:[0-9]{4}|[0-9]{2})|(?:19|20)[0-9]{6}|"
    rf"{_MONTH} [0-9]{{1,2}}(?:st|nd|rd|th)?,? [0-9]{{4}}|[0-9]{{1,2}}(?:st|nd|rd|th)?(?: of)?[ -]{_MONTH},?[ -][0-9]{{4}}|"
    rf"{_MONTH} [0-9]{{4}}|"
    r"[0-9]{4} ?年 ?[0-9]{1,2} ?月(?: ?[0-9]{1,2} ?[日号])?)"
)
_BORN_BEFORE = re.compile(
    r"(?:(?<![A-Za-z])(?:[Dd]\.?[Oo]\.?[Bb]\b\.?|[Dd]ate of [Bb]irth|DATE OF BIRTH|[Bb]irth ?[Dd]ate|[Bb]irthday|[Bb]orn)|"
    "出生日期|出生年月日?|出生时间|出生|(?<!卫)生日|生于|生年月日|诞生)"
    rf"[\s:：,，.?()（）=-]{{0,4}}(?:(?:[Ii]t['’]s|[Ii]t is|on|in|is|was|the|于|是|为|在)[\s:：]{{0,2}}){{0,2}}({_DAY}){_END}"
)
_BORN_AFTER = re.compile(rf"({_DAY})[\s，,]?(?:出生|生(?![日效产命活成长])|诞生)")
_OLDEST_YEAR = 1900  # whoever was born before is in the history books
_YEAR = re.compile("[0-9]{4}")

_ACCOUNT = re.compile(
    r"(?:微信(?:账号|号码|号|ID)?|威信|QQ号?|企鹅号|(?<![A-Za-z])(?:(?:VX|vx|Vx|WX|wx|qq号?)(?![A-Za-z])|[Ww]e[Cc]hat|WECHAT|[Tt]elegram|[Ss]kype|"
    r"[Ss]napchat|LINE ID))[\s:：#,，.(（=]{0,4}"
    r"(?:(?:number|no|ID|id|[Hh]andle|account|username|user|is|号码|号|是|为|QQ)[\s:：#,，.(（=]{0,4}){0,3}"
    rf"(@?[A-Za-z][A-Za-z0-9_-]{{4,29}}|[0-9]{{5,11}}){_END}"
)
_BIRTH_WORDS = ("born", "birth", "dob", "d.o.b", "出生", "生日", "生于", "生年", "诞生", "日生", "月生", "号生", "日，生", "月，生")
_ACCOUNT_WORDS = ("微信", "威信", "vx", "wx", "wechat", "qq", "企鹅号", "telegram", "skype", "snapchat", "line id")
_LABEL_END = re.compile(r"(?:[:：=@]|号|ID|id|是|为|is|handle|username)\s?$")
_PLATE = re.compile(
    r"(?<![A-Za-z0-9])[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z][·•． -]?"
    r"[A-HJ-NP-Z0-9]{4,5}[A-HJ-NP-Z0-9挂学警港澳](?![A-Za-z0-9])"
)
_PLATE_WORDS = re.compile("车|牌")

# Looked for only where one of the words stands: most rows have none, and asking for a word is far cheaper than the pattern.
_NUMBERS = (
    ("record_number", ("号", "卡", "mrn", "record", " no", " id", "number", "#"), _RECORD, 3),
    ("passport", ("passport", "护照"), _PASSPORT, 5),
)
_DIGIT = re.compile("[0-9]")


def find_stated(text: str) -> Iterator[Span]:
    """Values behind a label."""
    if not _DIGIT.search(text):
        yield from _accounts(text, text.lower())
        return
    lower = text.lower()
    for kind, words, pattern, digits in _NUMBERS:
        if any(word in lower for word in words):
            for match in pattern.finditer(text):
                if sum(character.isdigit() for character in match[1]) >= digits:
                    yield Span(*match.span(1), kind, CHECKED)
    if any(word in lower for word in _BIRTH_WORDS):
        yield from _birth_dates(text)
    yield from _accounts(text, lower)
    yield from _plates(text)


def _birth_dates(text: str) -> Iterator[Span]:
    for pattern in (_BORN_BEFORE, _BORN_AFTER):
        for match in pattern.finditer(text):
            year = _YEAR.search(match[1])
            if not year or int(year[0]) >= _OLDEST_YEAR:
                yield Span(*match.span(1), "birth_date", CHECKED)


def _accounts(text: str, lower: str) -> Iterator[Span]:
    if not any(word in lower for word in _ACCOUNT_WORDS):
        return
    for match in _ACCOUNT.finditer(text):
        value, label = match[1], text[match.start() : match.start(1)]
        if value.isalpha() and not (_LABEL_END.search(label) and value.islower()):
            continue
        yield Span(*match.span(1), "account", STATED)


def _plates(text: str) -> Iterator[Span]:
    for match in _PLATE.finditer(text):
        marked = match[0][2] in "·•．" or _PLATE_WORDS.search(words_before(text, match.start(), 12) + text[match.end() : match.end() + 6])
        if marked and sum(character.isdigit() for character in match[0]) >= 2:
            yield Span(*match.span(), "plate", LIKELY)
