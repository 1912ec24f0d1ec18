"""Text that was decoded with the wrong encoding, put right where that can be undone without doubt.

Three damages: UTF-8 read as a Western, Greek or Cyrillic code page (ftfy knows these), UTF-8 read as GBK, and GBK read as Latin-1, both
common in Chinese data and unknown to ftfy. Of ftfy only the repair of encodings is used: its other fixes rewrite quotes, widths and
ligatures, which in training text are meant. Next: `cleaning.py`.
"""

import re
from collections.abc import Iterator
from functools import cache

_HAN = re.compile("[\u4e00-\u9fff]")
_NOT_CHINESE = re.compile("[^\x00-\x7f\u00b7\u2014\u2018-\u201d\u2026\u3000-\u303f\u3400-\u9fff\uff00-\uffef\ufffd]")
_LOST = "\ufffd"
_LATIN1_PAIRS = re.compile("(?:[\xa1-\xf7][\xa1-\xfe])+")
_LATIN1_ODD = re.compile("[^\x00-\x7f\xa1-\xfe]")

_LEAST_HAN = 4  # characters that must come out as Chinese before a line is believed to have been Chinese
_LONGEST_PIECE = 2000  # characters that are judged as one; ftfy may need several passes over a piece


def mended(text: str) -> str:
    """The text with wrongly decoded lines put right; a line in doubt stays as it is."""
    if text.isascii():
        return text
    suspicious = bool(_suspicious().search(text))
    if not suspicious and not _may_be_gbk(text[:64]):
        return text
    return "".join(_mended_line(piece, suspicious) for piece in _pieces(text))


def _mended_line(line: str, suspicious: bool) -> str:
    if line.isascii():
        return line
    chinese = _utf8_read_as_gbk(line) or (suspicious and _gbk_read_as_latin1(line))
    if chinese:
        return chinese
    return _fixed_by_ftfy(line) if suspicious else line


def _fixed_by_ftfy(line: str) -> str:
    # Imported late: it takes 0.1 s, and most files have no damaged line.
    from ftfy import TextFixerConfig, fix_encoding
    from ftfy.badness import is_bad

    return fix_encoding(line, TextFixerConfig(explain=False)) if is_bad(line) else line


@cache
def _suspicious() -> re.Pattern[str]:
    """A sieve for ftfy's own, 60 times slower judgement: every text it calls bad has one of these (a test holds them together)."""
    from ftfy.badness import MOJIBAKE_CATEGORIES

    unusual = "".join(characters for name, characters in MOJIBAKE_CATEGORIES.items() if name != "common")
    return re.compile(f"[\x80-\x9fŒœÂÃÎÐØÙ]|[{unusual}]{{2}}")


def _pieces(text: str) -> Iterator[str]:
    """Lines with their line feeds, the long ones cut at spaces. No other line end counts: byte 0x85 is half a letter here."""
    for line in re.findall(r"[^\n]*\n?", text):
        start = 0
        while len(line) - start > _LONGEST_PIECE:
            cut = line.rfind(" ", start, start + _LONGEST_PIECE)
            end = cut + 1 if cut > start else start + _LONGEST_PIECE
            yield line[start:end]
            start = end
        yield line[start:]


def _may_be_gbk(start: str) -> bool:
    """Whether the first characters, in GBK, are bytes of UTF-8. Chinese that was decoded rightly is nothing like it."""
    read = _bytes_of_gbk(start).decode("utf-8", "replace")
    return read.count(_LOST) * 4 <= len(_HAN.findall(read))


def _utf8_read_as_gbk(line: str) -> str | None:
    """The Chinese behind the line. An odd number of bytes cost it its last character, which then shows as lost."""
    read = _bytes_of_gbk(line).decode("utf-8", "replace")
    return read if _is_chinese(read) else None


def _bytes_of_gbk(line: str) -> bytes:
    """Windows reads byte 0x80 as the euro sign; a byte that could not be read leaves a character of UTF-8 incomplete, so lost."""
    parts = re.split("([€\ufffd])", line)
    return b"".join(b"\x80" if part == "€" else b"" if part == _LOST else part.encode("gb18030", "replace") for part in parts)


def _gbk_read_as_latin1(line: str) -> str | None:
    """Accented letters stand in long rows of pairs, as no Western language writes them, and the pairs are frequent Chinese characters.

    Pairs that are UTF-8 are the commoner damage (Ã© would be 茅) and left to ftfy.
    """
    rows = [] if _LATIN1_ODD.search(line) else _LATIN1_PAIRS.findall(line)
    if max(map(len, rows), default=0) < 2 * _LEAST_HAN:
        return None
    body = line.encode("latin-1")
    try:
        chinese = body.decode("gb2312")
    except UnicodeError:
        return None
    leads = "".join(rows)[::2]
    frequent = sum("\xb0" <= lead <= "\xd7" for lead in leads)
    if _LOST not in body.decode("utf-8", "replace") or frequent * 10 < len(leads) * 6:
        return None
    return chinese if _is_chinese(chinese) else None


def _is_chinese(text: str) -> bool:
    chinese = len(_HAN.findall(text))
    return chinese >= _LEAST_HAN and text.count(_LOST) <= max(1, chinese // 8) and not _NOT_CHINESE.search(text)
