"""Names of people in Chinese text, from a surname list and the words around.

A name is believed where something announces it (患者, 姓名：, 我叫, 我妈妈 …) or a title follows (先生, 医生 …), and where
what comes after shows that it has ended; three characters that are nothing but a frequent name need no announcement.
There is no model: jieba's part of speech was tried, and of the "names" it saw in medical text four in five were drugs.
So a two-character name that nothing announces is missed, unless it was announced elsewhere in the same row
(`privacy_repeats.py` sees to that). Already anonymous forms (李某, 张XX) are left alone, and so are 小李 and 老王, which say no
more than a surname. Next: `privacy_repeats.py`.
"""

import re
from collections.abc import Iterator

from training.data.privacy_spans import CHECKED, LIKELY, STATED, Span
from training.data.privacy_words_zh import (
    CLEAR_SURNAMES,
    COMPOUND_SURNAMES,
    GIVEN_CHARACTERS,
    NOT_GIVEN_CHARACTERS,
    SURNAMES,
    SURNAMES_BEFORE_TITLE,
    UNCLEAR_GIVEN_CHARACTERS,
    WORDS_AND_SURNAMES,
    WORDS_LIKE_NAMES,
)

_AFTER_LABEL = '(?:姓名|名字|名称)?[\\s　]{0,3}[:："“「]{1,2}[\\s　]{0,3}'
_FIELD = re.compile(
    "(?:姓名|名字|联系人|收件人|寄件人|(?<!用)户名|开户人|持卡人|监护人|被保险人|投保人|受益人|签名|签字|经办人|体检人|就诊人|申请人|受检者|负责人|"
    f"审核者?|报告者|本人){_AFTER_LABEL}"
)
# In a dialogue they announce what somebody says, not who it is.
_SPEAKER = re.compile(f"(?:患者|病人|患儿|产妇|孕妇|伤者|逝者|家属|医师|医生|大夫|护士|药师){_AFTER_LABEL}")
_INTRODUCTION = re.compile(
    "我叫做?|名叫|名字叫做?|我是|本人(?:姓名)?(?:叫|是|为)?|我的?名字是|姓名是|兹有|我(?:老公|老婆)?姓|"
    "(?:孩子|宝宝|女儿|儿子|他|她|妹妹|弟弟|哥哥|姐姐)叫做?"
)
_ROLE = re.compile(
    "患者|病人|患儿|产妇|伤者|主治医[师生]|主管医[师生]|责任护士|会诊医[师生]|被保险人|受益人|投保人|监护人|开户人|收件人|联系人|家属|"
    "用户名|户名|姓名|"
    "我(?:的)?(?:妈妈?|爸爸?|母亲|父亲|老公|老婆|丈夫|妻子|爱人|儿子|女儿|妹妹|弟弟|哥哥|姐姐|哥|姐|婆婆|公公|爷爷|奶奶|外公|外婆|"
    "同事|朋友|室友|男友|女友|男朋友|女朋友|同学|邻居|岳父|岳母)"
)
_TITLE = re.compile(
    "先生|女士|小姐|太太|同学|医生|大夫|教授|主任|医师|药师|护士|老师|阿姨|叔叔|伯伯|大爷|大妈|大叔|大娘|奶奶|爷爷|小朋友|师傅|会计|"
    "经理|院长|警官|律师|同志"
)
_BARE = re.compile(
    f"[{''.join(sorted(CLEAR_SURNAMES))}](?=([{''.join(sorted(GIVEN_CHARACTERS - UNCLEAR_GIVEN_CHARACTERS - NOT_GIVEN_CHARACTERS))}]{{2}}))"
)
_BEFORE_SEX = re.compile("(?:^|[，,、:：。；;（(\\s])([\u4e00-\u9fff]{2,4})(?=[，,、\\s]{1,2}[男女]性?[，,、。）)\\s0-9])")
_HAN = re.compile("[\u4e00-\u9fff]")
_LATIN = re.compile(r"(?:[A-Z][\w'’-]{1,20}|[A-Z]\.)(?:[ ·](?:[A-Z][\w'’-]{1,20}|[A-Z]\.)){0,3}(?![\w])")
_ETHNIC = re.compile("[\u4e00-\u9fff]{2,6}[·•][\u4e00-\u9fff]{2,6}")

# What may follow a name in running text.
_FOLLOWING = re.compile(
    "[于因的是在说诉已近被做来去和与及或有男女收总还也不没患需要想能应请对从到向把给查住今昨曾便后]|前[天年]|上[周午]|下[周午]|"
    "最近|目前|现|出[现院]|主诉|自[觉诉述]|入院|[先女][生士]|签[字名]|知情|同意|医[生师]|大夫|教授|主任|护士|老师|[您你]好|术后|夜间|"
    "年龄|性别|电话|身份|反[映复]|申请|咨询|一家|本人|态度|拒绝|可以|怀孕|[服使]用|[就复]诊|复查|体检|检查|发[烧热]|小朋友|同[学志]|"
    "阿姨|叔叔|既往|[0-9一二三四五六七八九十]{1,3}岁"
)
_BEFORE_TITLE = frozenset("好的是和与跟给让找请问向由为被对同及天日午晚说谢诉位叫看挂约到了者属人下写称")
_ANONYMOUS = re.compile("某|[*＊×xX○〇]")
_NICKNAME = frozenset("小老阿大")


def find_chinese_names(text: str) -> Iterator[Span]:
    """Announced and titled names; without their title."""
    if text.isascii():
        return
    if ":" in text or "：" in text or "“" in text:
        for match in _FIELD.finditer(text):
            yield from _announced(text, match.end(), trusted=True, everyday=True)
        for match in _SPEAKER.finditer(text):
            yield from (span for span in _announced(text, match.end(), trusted=False) if not _HAN.match(text, span.end))
    for match in _INTRODUCTION.finditer(text):
        yield from _announced(text, match.end(), trusted=match[0][-1] in "叫做姓" or match[0] == "兹有")
    for match in _ROLE.finditer(text):
        yield from _announced(text, _after_small_words(text, match.end()), trusted=False)
    for match in _BEFORE_SEX.finditer(text):
        yield from _announced(text, match.start(1), trusted=False)
    for match in _BARE.finditer(text):
        yield from _bare(text, match.start())
    for match in _TITLE.finditer(text):
        yield from _titled(text, match.start())


def _after_small_words(text: str, place: int) -> int:
    """Past what may stand between a role and the name: 患者：张三, 我妹妹叫张三."""
    while text[place : place + 1] in (" ", "　", "“", "「", "，") and text[place : place + 1]:
        place += 1
    return place + 1 if text[place : place + 1] == "叫" else place


def _announced(text: str, start: int, *, trusted: bool, everyday: bool = False) -> Iterator[Span]:
    """The name that begins here, if one does.

    `trusted` words are followed by hardly anything but a name, so it may have any characters; in a field (姓名：) it may even
    be an `everyday` word (高兴).
    """
    if match := _ETHNIC.match(text, start) or _LATIN.match(text, start):
        if trusted or (match[0][0].isascii() and " " in match[0]):
            yield Span(*match.span(), "name", STATED)
        return
    if text[start : start + 1] in _NICKNAME:
        return
    surname = 2 if text[start : start + 2] in COMPOUND_SURNAMES else 1
    if surname == 1 and text[start : start + 1] not in SURNAMES:
        if trusted and _ends_here(text, start + 2) and _looks_given(text[start : start + 2]):
            yield Span(start, start + 2, "name", LIKELY)
        return
    if _is_everyday(text, start) and not everyday:
        return
    for given in (2, 1):
        end = start + surname + given
        if _TITLE.match(text, start + surname):
            return
        if _is_given(text[start + surname : end], given, trusted=trusted) and _ends_here(text, end):
            yield Span(start, end, "name", CHECKED if trusted else STATED)
            return
    if trusted and text[start - 1 : start] == "姓" and _ends_here(text, start + surname):
        yield Span(start, start + surname, "name", STATED)


def _is_given(given: str, length: int, *, trusted: bool) -> bool:
    if len(given) != length or any(character in NOT_GIVEN_CHARACTERS or not _HAN.match(character) for character in given):
        return False
    return trusted or _looks_given(given)


def _looks_given(given: str) -> bool:
    return all(character in GIVEN_CHARACTERS for character in given)


def _is_everyday(text: str, start: int) -> bool:
    return any(text[start : start + length] in WORDS_LIKE_NAMES for length in (2, 3, 4))


def _ends_here(text: str, end: int) -> bool:
    following = text[end : end + 1]
    if not following or not _HAN.match(following):
        return following not in ("*", "×", "·")
    return _FOLLOWING.match(text, end) is not None


def _bare(text: str, start: int) -> Iterator[Span]:
    """王建国来复诊: three characters that begin and end like a name."""
    titled = _TITLE.match(text, start + 1) or _TITLE.match(text, start + 2)
    if _begins_here(text, start) and _ends_here(text, start + 3) and not titled and not _is_everyday(text, start):
        yield Span(start, start + 3, "name", LIKELY)


def _titled(text: str, title: int) -> Iterator[Span]:
    """The name that ends where the title begins: 欧阳靖女士, 李明医生, 王先生."""
    for length in (4, 3, 2, 1):
        start = title - length
        if start < 0 or _is_everyday(text, start):
            continue
        surname = 2 if length > 1 and text[start : start + 2] in COMPOUND_SURNAMES else 1
        given = text[start + surname : title]
        free = _begins_here(text, start)
        if surname == 1 and (length == 4 or not _may_begin_titled(text[start], alone=not given, free=free)):
            continue
        if given and not (_is_given(given, len(given), trusted=False) and (free or len(given) == 2)):
            continue
        if given or free:
            yield Span(start, title, "name", STATED if given else LIKELY)
            return


def _may_begin_titled(surname: str, *, alone: bool, free: bool) -> bool:
    if alone:
        return surname in SURNAMES_BEFORE_TITLE
    return surname in SURNAMES and (free or surname not in WORDS_AND_SURNAMES)


def _begins_here(text: str, start: int) -> bool:
    before = text[start - 1 : start] if start else ""
    if before in _NICKNAME or _ANONYMOUS.match(before):
        return False
    return not before or not _HAN.match(before) or before in _BEFORE_TITLE
