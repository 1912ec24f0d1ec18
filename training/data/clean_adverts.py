"""Adverts and page furniture in English and Chinese: sentences that a website said to its visitor and nobody wrote as an answer.

Conservative on purpose. A sentence goes only if all of it has the shape of an advert; questions, sentences that name an emergency
or crisis line, lines with code, and anything longer than a few lines stay. Labels such as "Advertisement" or "Share" go only as a line
among others, because alone they may be somebody's answer. Next: `cleaning.py`.
"""

import re
from functools import cache

from training.data.clean_code import by_fences

_LONGEST = 300  # characters; a longer sentence is never judged
_SENTENCE_END = re.compile(r"(?<=[。！？；!?])(?![。！？；!?”’」』）)\"'])|(?<=\.)(?=\s)")
_EDGES = " \t\r\n\u3000-*•·>#|【】[]（）()《》~～"

# Never an advert, whatever else the sentence says.
_HELP = re.compile(
    r"\b(?:911|988|999|112)\b|emergenc|suicid|crisis|poison|lifeline|domestic violence"
    r"|(?<![\dA-Za-z_-])(?:110|119|120|12320|12345|12355|12356)(?!\d)|急救|报警|自杀|危机|心理援助|中毒|家暴|救助",
    re.IGNORECASE,
)

_NETWORK = "(?:facebook|twitter|x|instagram|youtube|linkedin|tiktok|pinterest|reddit|whatsapp|wechat|weibo|telegram|social media)"
_ENGLISH = (
    r"(?:please |just |simply )?click here(?:\W.{0,160})?",
    r"(?:for|to|if you|more)\b.{3,240}?\W(?:please )?click here",
    r"(?:sign up|subscribe)(?: now| today| here)?(?: for| to)? (?:our|my)\b.{0,40}"
    r"(?:newsletter|mailing list|channel|updates|blog|podcast)\b.{0,80}",
    rf"(?:you can )?(?:also )?(?:like|follow|find|join|connect with|add) us on {_NETWORK}\b.{{0,100}}",
    r"(?:copyright )?(?:©|copyright \(c\)) ?(?:copyright )?(?:\d{4}\b)?.{0,120}",
    r"copyright (?:19|20)\d\d\b.{0,120}",
    r".{0,80}\ball rights reserved",
    r"(?:this|our|the) (?:web ?)?site uses cookies.{0,200}",
    r"we (?:and our partners )?use cookies (?:to|and|on (?:this|our)).{0,200}",
    r"by (?:continuing|using|clicking|browsing)\b.{0,100}\bcookies?\b.{0,100}",
    r"(?:please )?enable (?:javascript|cookies)\b.{0,100}",
    r"(?:please )?(?:call|phone|text|whatsapp|contact) (?:us|our (?:team|office|sales|clinic|experts?|hotline))\b"
    r"[^0-9]{0,60}[\d(+][\d\s().+-]{6,20}.{0,60}",
    r"(?:order|buy|shop|book|call) (?:now|today)\b.{0,80}"
    r"(?:discount|offer|free shipping|% off|limited time|deals?\b|\d{3}[\s.-]\d{4}).{0,80}",
    r"(?:get|download|try) our (?:free |new |mobile )?app\b.{0,100}",
    r"this (?:post|article|video|page) (?:is|was) sponsored by .{1,80}",
)
_SOON = "(?:请|欢迎|敬请|快来|赶紧|立即|马上|记得|可以|可|长按|扫码|微信|点击|，|,)"
_WHOM = '(?:我们|我|本站|本|小编|作者|下方|同名|微信|官方|的|一下|上方|[“"「《【][^”"」》】]{1,20}[”"」》】])'
_CHINESE = (
    rf"(?:.{{0,30}}[,，:：~～ ])?{_SOON}{{0,3}}(?:关注|订阅|搜索|添加){_WHOM}{{0,4}}"
    r"(?:公众号|公众平台|订阅号|服务号|视频号|抖音号).{0,40}",
    r"(?:官方)?(?:微信)?(?:公众号|订阅号|服务号)\s{0,3}[:：].{1,40}",
    r".{0,30}(?<![参增追附更强])加(?:我|我们|客服|老师|医生|专家|助理|助手|小编|店主|下方)?的?(?:个人|客服)?(?:微信|薇信|威信|[vV][xX信]|[wW][xX])号?"
    r"(?:[:：]|号|\s{0,3}[A-Za-z0-9_-]{5,20}|咨询|了解|领取|免费|进群|详聊|$).{0,60}",
    r".{0,10}(?:微信号?|客服|[vV][xX]|[wW][xX]|QQ群?|企鹅群)\s{0,3}[:：]\s{0,3}[A-Za-z0-9_-]{5,20}.{0,30}",
    r".{0,20}(?:长按|扫描|扫一扫|微信扫|识别|扫码?|戳).{0,12}二维码.{0,12}(?:关注|添加|加|进群|入群|领取|咨询|购买|下载|了解).{0,40}",
    r"(?:©|copyright|\(c\))?.{0,40}版权所有(?:$|[,，.:：©\s\d]).{0,60}",
    r".{0,20}(?:侵权必究|翻印必究)",
    r"(?:.{0,20}[,，])?(?:转载(?:请|须|需)(?:注明|联系|标明)|如需转载|图片来源于?网络|未经.{0,20}(?:不得|禁止|请勿|严禁)(?:擅自)?转载|(?:禁止|谢绝|严禁)转载)"
    r".{0,40}",
    rf"{_SOON}{{0,3}}(?:点击|戳)(?:这里|此处|下方链接|下方卡片|下方二维码|上方蓝字|蓝字|阅读原文|左下角.{{0,4}}阅读原文)"
    r"(?:$|[,，]?(?:即可|可|就能|查看|了解|进入|关注|下载|购买|咨询|报名|领取|获取|阅读|预约|免费|立即|参与).{0,60})",
    rf"{_SOON}{{0,3}}点击链接(?:查看|了解|购买|领取|咨询|报名|预约).{{0,40}}",
    rf"更多.{{0,30}}(?:请|欢迎|敬请){_SOON}{{0,2}}"
    rf"(?:关注{_WHOM}{{0,4}}(?:公众号|微信|微博|头条号|我们|本站)|登录本站|访问本站|扫码).{{0,40}}",
    r"(?:觉得|喜欢|如果觉得).{0,20}(?:点赞|点个赞|点个在看|转发|收藏|一键三连).{0,40}",
    r".{0,20}(?:免费咨询|咨询热线|咨询电话|订购热线|订购电话|加盟热线|加盟电话|招商热线|招商电话|客服热线|客服电话|专家热线|服务热线)"
    r"(?:号码)?\s{0,3}[:：]?\s{0,3}[\d(（+][\d\s()（）+*-]{6,20}.{0,30}",
    r"(?:本网?站|我们的?网站|我们)(?:会)?(?:使用|采用)\s{0,3}cookies?.{0,120}",
    r"(?:如果您?)?继续(?:浏览|使用).{0,40}cookies?.{0,80}",
    r"(?:立即|马上|扫码|欢迎|快来|赶紧)(?:点击)?下载.{0,16}(?:app|客户端).{0,60}",
)
_BUTTON = "(?:share|tweet|pin it|like|print|email|e-mail|facebook|twitter|linkedin|pinterest|whatsapp|reddit|instagram|youtube|google\\+)"
_LINK = (
    "(?:home|about us|contact us|privacy policy|terms of use|terms of service|terms and conditions|sitemap|site map|disclaimer|faq|login"
    "|sign in)"
)
_LABELS = (
    "advertisement|sponsored content|read more|continue reading|learn more|see more|back to top|click here|accept (?:all )?cookies",
    "skip to (?:main )?(?:content|navigation)|cookie (?:policy|settings|preferences|notice)",
    rf"{_BUTTON}(?:[ |/,·]{{1,3}}{_BUTTON}){{1,10}}",
    rf"{_LINK}(?:\s{{0,3}}[|/·]\s{{0,3}}{_LINK}){{1,10}}",
    "share (?:this|on|via)(?: (?:article|post|page|story|on|via|to|with|friends|your|facebook|twitter|linkedin|email|whatsapp)){0,8}",
    "广告|阅读原文|查看更多|展开全文|展开阅读全文|点击查看更多.{0,10}|返回顶部|返回首页|上一篇.{0,40}|下一篇.{0,40}",
    "(?:责任编辑|责编|实习编辑|原标题)[:：].{1,40}",
    "(?:分享|转发)(?:到|至)(?:微信|朋友圈|微博|新浪|QQ空间|QQ好友|QQ|豆瓣|更多|好友|[:：、,，/])+",
    "(?:点赞|收藏|转发|关注|评论|在看|分享)(?:[、,，+＋和 ]{1,2}(?:点赞|收藏|转发|关注|评论|在看|投币|三连|分享)){1,6}",
)


# Every pattern above holds one of these: most texts hold none and are done after a few searches. Chinese triggers are one expression,
# because their first characters are rare; English ones are searched one by one, because their first letters are everywhere.
_ENGLISH_TRIGGERS = (
    "click here|sign up|subscribe|us on |copyright|©|rights reserved|cookie|enable javascript|contact us|contact our|call us|call our"
    "|phone us|phone our|text us|whatsapp|order now|buy now|shop now|book now|call now|order today|buy today|shop today|book today"
    "|call today|download our|get our|try our|sponsored|advertisement|read more|continue reading|learn more|see more|skip to|back to top"
    "|share this|share on|share via|tweet|facebook|pin it|linkedin|privacy policy|terms of|about us|site map|sitemap"
)
_TRIGGERS = _ENGLISH_TRIGGERS.split("|")
_CHINESE_TRIGGER = re.compile(
    "公众|订阅号|服务号|视频号|抖音号|微信|薇信|威信|加[vw]|vx|wx|v信|qq|企鹅|客服|二维码|版权所有|必究|转载|图片来源|点击|戳|请关注|欢迎关注|敬请关注"
    "|点赞|点个|三连|在看|免费咨询|(?:咨询|订购|加盟|招商|专家|服务)[热电]|下载|广告|阅读原文|查看更多|展开|返回|上一篇|下一篇|责编|编辑|原标题|分享|转发"
)


class Adverts:
    """Finds adverts; `phrases` are plain words of the recipe that mark a sentence as one."""

    def __init__(self, phrases: tuple[str, ...]) -> None:
        self.phrases = tuple(phrase.lower() for phrase in phrases)

    def removed_from(self, text: str) -> tuple[str, list[str]]:
        """The text without adverts, and the adverts."""
        lowered = text.lower()
        if not self._may_hold_one(lowered):
            return text, []
        found: list[str] = []
        only = "\n" not in text.strip()
        pieces = [piece if is_code else self._from_prose(piece, only, found) for is_code, piece in by_fences(text)]
        return ("".join(pieces), found) if found else (text, [])

    def _may_hold_one(self, lowered: str) -> bool:
        for trigger in _TRIGGERS:  # a plain loop: half the cost of any() here, on every text of every row
            if trigger in lowered:
                return True
        if not lowered.isascii() and _CHINESE_TRIGGER.search(lowered):
            return True
        return any(phrase in lowered for phrase in self.phrases)

    def _from_prose(self, prose: str, only: bool, found: list[str]) -> str:
        kept = []
        for line in prose.split("\n"):
            rest = self._from_line(line, only, found)
            if rest.strip() or not line.strip():
                kept.append(rest)
        return "\n".join(kept)

    def _from_line(self, line: str, only: bool, found: list[str]) -> str:
        if "`" in line or not self._may_hold_one(line.lower()):
            return line
        if not only and len(line) <= _LONGEST and _labels().fullmatch(_bare(line)):
            found.append(line.strip())
            return ""
        kept = []
        for sentence in _SENTENCE_END.split(line):
            if self._is_advert(sentence):
                found.append(sentence.strip())
            else:
                kept.append(sentence)
        return "".join(kept)

    def _is_advert(self, sentence: str) -> bool:
        if len(sentence) > _LONGEST:
            return False
        lowered = sentence.lower()
        if any(phrase in lowered for phrase in self.phrases):
            return True
        if sentence.rstrip().endswith(("?", "？")) or not self._may_hold_one(lowered) or _HELP.search(sentence):
            return False
        return bool(_adverts().fullmatch(_bare(sentence)))


def _bare(sentence: str) -> str:
    """The sentence in lower case, without bullets, brackets and its full stop."""
    return sentence.strip(_EDGES).rstrip("。！；.!;»›>→… ").lower()


@cache
def _adverts() -> re.Pattern[str]:
    return re.compile("|".join([*_ENGLISH, *_CHINESE]), re.IGNORECASE)


@cache
def _labels() -> re.Pattern[str]:
    return re.compile("|".join(_LABELS), re.IGNORECASE)
