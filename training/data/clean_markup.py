"""HTML out of text that was scraped, and only out of such text.

Angle brackets are common without any markup: p < 0.05, a<b>c, List<String>, <your name>, <|im_start|>. So only tags that HTML knows
count, and only where something proves them: attributes, a counterpart, or a tag that stands alone by nature such as <br>. Text that
speaks about HTML keeps it, and so does a whole page or form, which in training rows is an answer rather than a remnant.
Code is never touched. Next: `cleaning.py`.
"""

import html
import re
from collections import Counter
from html.entities import html5

from training.data.clean_code import outside_code, prose_of


def _names(spaced: str) -> frozenset[str]:
    return frozenset(spaced.split())


_INLINE = _names("a b big em font i small span strike strong u")
_BLOCK = _names("blockquote center dd div dl dt figcaption figure h1 h2 h3 h4 h5 h6 li ol p pre table tbody td tfoot th thead tr ul")
_ALONE = _names("br hr wbr")
_HEIGHTS = _names("sub sup")
_WITH_CONTENT = _names("script style noscript iframe svg")  # what is between their tags is no text
# Prompts use such names as delimiters (<summary>…</summary>), so they go only where the others prove markup.
_ALSO = _names(
    "abbr acronym address article aside bdi bdo caption cite code col del details dfn dir footer header img ins kbd link main mark nav"
    " picture q s samp section source summary template tt var video audio"
)
_PAGE = _names("html head body title meta base form input button label option select textarea")
_PROVING = _INLINE | _BLOCK | _HEIGHTS | _WITH_CONTENT | _PAGE
_KNOWN = _PROVING | _ALONE | _ALSO

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,9})((?:\s[^<>]{0,2000})?)/?>")
_ATTRIBUTE = re.compile(r"\s[A-Za-z][\w:-]{1,30}\s{0,3}=\s{0,3}[\"']|\s[A-Za-z-]{3,30}=[^\s=]")
_DOCTYPE = re.compile(r"<!doctype\s[^<>]{0,300}>", re.IGNORECASE)
_ABOUT_MARKUP = re.compile(
    r"(?<![A-Za-z.])(?:x?html5?|xml|css|javascript|jsx|markup|tag|ampersand)(?![A-Za-z])|标签|标记语言|字符实体", re.IGNORECASE
)

# An exponent that loses its height changes a dose: 10<sup>9</sup>/L must not become 109/L.
_HEIGHT = re.compile(r"<(su[bp])>\s{0,3}([0-9+\-−]{1,8})\s{0,3}</su[bp]>", re.IGNORECASE)
_RAISED = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_LOWERED = str.maketrans("0123456789+-−", "₀₁₂₃₄₅₆₇₈₉₊₋₋")

_ESCAPED_AMPERSAND = re.compile(r"&(?:amp;|#38;|#x26;)+(?=#?[A-Za-z0-9]{1,31};)", re.IGNORECASE)
_ESCAPED_TAG = re.compile(rf"&lt;/?(?:{'|'.join(sorted(_KNOWN, key=len, reverse=True))})(?:\s[^<>&]{{0,500}})?/?&gt;", re.IGNORECASE)
_ESCAPED_CLOSER = re.compile(r"&lt;/(?:p|div|li|ul|ol|td|tr|table|h[1-6]|strong|em|span|a)&gt;", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def without_markup(text: str, pages: bool) -> str:
    """The text without tags, comments, scripts and entities; whole pages and forms too if `pages`."""
    if "<" in text:
        text = _without_tags(text, pages)
    return _without_entities(text) if "&" in text and ";" in text else text


def _without_tags(text: str, pages: bool) -> str:
    prose = prose_of(text)
    proven = _proven_tags(prose)
    if not proven and "<!--" not in prose:
        return text
    if not pages and (proven & _PAGE or _DOCTYPE.search(prose)):
        return text
    stripped = outside_code(text, lambda piece: _strip(piece, proven))
    return text if _ABOUT_MARKUP.search(stripped) else stripped


def _proven_tags(prose: str) -> frozenset[str]:
    """Names of tags that are markup here and not a comparison or somebody's placeholder."""
    opened, closed, proven = Counter[str](), Counter[str](), set[str]()
    for match in _TAG.finditer(prose):
        name = match[2].lower()
        if name in _KNOWN:
            (closed if match[1] else opened)[name] += 1
            if name in _ALONE or _ATTRIBUTE.search(match[3]):
                proven.add(name)
    proven |= opened.keys() & closed.keys() & _PROVING
    proven |= {name for name in _BLOCK if opened[name] > 1}  # <p> and <li> need no counterpart
    if proven:  # where there is markup, a block tag without its other half is a remnant
        proven |= (opened.keys() | closed.keys()) & (_BLOCK | _HEIGHTS | _ALSO)
    return frozenset(proven)


def _strip(piece: str, proven: frozenset[str]) -> str:
    piece = _DOCTYPE.sub("", _HEIGHT.sub(_at_height, _without_comments(piece)))
    tags = [match for match in _TAG.finditer(piece) if match[2].lower() in proven]
    last_closer = {match[2].lower(): match.start() for match in tags if match[1]}
    kept: list[str] = []
    position, inside = 0, ""
    for match in tags:
        name, closing = match[2].lower(), bool(match[1])
        if not inside:
            kept += [piece[position : match.start()], _in_place_of(name, closing=closing)]
            inside = name if name in _WITH_CONTENT and not closing and last_closer.get(name, -1) > match.start() else ""
        elif closing and name == inside:
            inside = ""
        position = match.end()
        if name == "br" and piece.startswith("\n", position):
            position += 1
    return "".join([*kept, piece[position:]])


def _in_place_of(name: str, *, closing: bool) -> str:
    if name == "li":
        return "" if closing else "\n- "
    if name in ("td", "th"):
        return "\t" if closing else ""
    return "\n" if name in ("br", "hr") or name in _BLOCK or name in _PAGE else ""


def _at_height(match: re.Match[str]) -> str:
    return match[2].translate(_RAISED if match[1].lower() == "sup" else _LOWERED)


def _without_comments(piece: str) -> str:
    kept: list[str] = []
    position = 0
    while (start := piece.find("<!--", position)) >= 0 and (end := piece.find("-->", start)) >= 0:
        kept.append(piece[position:start])
        position = end + 3
    return "".join([*kept, piece[position:]])


def _without_entities(text: str) -> str:
    if not _ENTITY.search(text) or _ABOUT_MARKUP.search(text):
        return text
    escaped_page = bool(_ESCAPED_CLOSER.search(text))
    return outside_code(text, lambda piece: _unescaped(piece, tags_too=escaped_page))


def _unescaped(piece: str, *, tags_too: bool) -> str:
    """Entities as characters; a lone &lt;br&gt; is somebody showing a tag and stays, an escaped page becomes markup to be stripped."""
    piece = _ESCAPED_AMPERSAND.sub("&", piece)
    if tags_too:
        return _ENTITY.sub(_character, piece)
    kept: list[str] = []
    position = 0
    for tag in _ESCAPED_TAG.finditer(piece):
        kept += [_ENTITY.sub(_character, piece[position : tag.start()]), tag[0]]
        position = tag.end()
    return "".join([*kept, _ENTITY.sub(_character, piece[position:])])


def _character(match: re.Match[str]) -> str:
    entity = match[0]
    return html.unescape(entity) if entity[1] == "#" or entity[1:] in html5 else entity
