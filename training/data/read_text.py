"""Bytes to text where they are not UTF-8: which old encoding a line is in, decided by the lines beside it, and counted.

A line is taken as UTF-8 first; this module is asked only when that fails, and refuses a line that is damaged UTF-8. Lone high
bytes between ASCII letters are Western (Windows-1252: an accent, a curly quote); runs of them are Chinese, Japanese, Korean or
Cyrillic, told apart by charset-normalizer over a sample. Text with control characters is refused. Next: `read_lines.py`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

_RUN = re.compile(rb"[\x80-\xff]+")
_ASCII = bytes(range(128))
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f]")
_WESTERN = "cp1252"
_EASTERN = ["gb18030", "big5", "shift_jis", "euc_kr", "cp1251"]
_SAMPLE_BYTES = 16_384
_SHORT_SAMPLE = 24  # high bytes; below, statistics say nothing
_MAX_DETECTIONS = 16  # a hostile file must not make every line cost a detection


class Decoder:
    """Decodes the lines of one file that are not UTF-8.

    Args:
        encoding: a Python codec name, `auto` to detect it, or `utf-8` to refuse every other.
        notes: gets `decoded_<encoding>` counted, once for each line.
    """

    def __init__(self, encoding: str, notes: Counter[str]) -> None:
        self.encoding, self.notes = encoding, notes
        self._learnt: dict[bool, str] = {}
        self._detections = 0

    def utf8_only(self) -> "Decoder":
        """For text that came out of UTF-16: what is not UTF-8 there is broken, not old."""
        return Decoder("utf-8", self.notes)

    def legacy(self, line: bytes, beside: Sequence[object] = ()) -> str | None:
        """The text of a line that is not UTF-8, or None where no encoding gives plausible text.

        Args:
            line: the line.
            beside: lines that follow it, as evidence.
        """
        if _is_damaged_utf8(line):
            return None
        for encoding in self._candidates(line, beside):
            text = _decoded(line, encoding)
            if text is not None:
                self.notes[f"decoded_{encoding}"] += 1
                return text
        return None

    def _candidates(self, line: bytes, beside: Sequence[object]) -> Iterator[str]:
        if self.encoding == "utf-8":
            return
        if self.encoding != "auto":
            yield self.encoding
            return
        wide = _is_wide(line)
        if not wide:
            yield _WESTERN
        if wide in self._learnt:
            yield self._learnt[wide]
        if self._detections < _MAX_DETECTIONS:
            self._detections += 1
            if found := _detect(_sample(line, beside, wide)):
                self._learnt[wide] = found
                yield found


def text_pieces(chunks: Iterable[bytes], decoder: Decoder) -> Iterator[str]:
    """The text of a file that is one JSON value, in pieces that are never empty.

    Bytes that no line-wise decoding explains come as surrogate escapes, so that the row they are in can be told.
    """
    held = b""
    for chunk in chunks:
        held += chunk
        if cut := held.rfind(b"\n") + 1 or _whole_characters(held):
            yield _piece(held[:cut], decoder)
            held = held[cut:]
    if held:
        yield _piece(held, decoder)


def _whole_characters(block: bytes) -> int:
    """Bytes of `block` that do not end inside a UTF-8 character."""
    for back in range(1, min(4, len(block)) + 1):
        if block[-back] >= 0xC0:
            return len(block) - back
        if block[-back] < 0x80:
            break
    return len(block)


def _piece(block: bytes, decoder: Decoder) -> str:
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(_line_text(line, decoder) for line in block.splitlines(keepends=True))


def _line_text(line: bytes, decoder: Decoder) -> str:
    """A multi-byte encoding must be undone before the parser looks: its second bytes may be backslashes and brackets."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        text = decoder.legacy(line) if line.endswith(b"\n") and _is_wide(line) else None
        return line.decode("utf-8", "surrogateescape") if text is None else text


def _decoded(line: bytes, encoding: str) -> str | None:
    try:
        text = line.decode(encoding)
        text.encode("utf-8")
    except (UnicodeError, LookupError):
        return None
    return None if _CONTROL.search(text) else text


def _is_damaged_utf8(line: bytes) -> bool:
    """Whether most high bytes are UTF-8 after all: then a character was cut, and as GB 18030 the line would be rubbish."""
    sound = line.decode("utf-8", "ignore").encode("utf-8")
    return 2 * len(sound.translate(None, _ASCII)) > len(line.translate(None, _ASCII))


def _is_wide(line: bytes) -> bool:
    """Whether the high bytes come in runs. A quarter is enough: half of Big5's second bytes are ASCII."""
    runs = [len(run) for run in _RUN.findall(line, 0, _SAMPLE_BYTES)]
    return 4 * sum(length for length in runs if length > 1) >= sum(runs)


def _sample(line: bytes, beside: Sequence[object], wide: bool) -> bytes:
    sample = bytearray(line[:_SAMPLE_BYTES])
    for other in _undecodable(beside[:1000]):
        if len(sample) >= _SAMPLE_BYTES:
            break
        if _is_wide(other) == wide:
            sample += b"\n" + other[:_SAMPLE_BYTES]
    return bytes(sample)


def _undecodable(lines: Iterable[object]) -> Iterator[bytes]:
    for line in lines:
        if isinstance(line, bytes) and not line.isascii():
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                yield line


def _detect(sample: bytes) -> str | None:
    if sum(map(len, _RUN.findall(sample))) < _SHORT_SAMPLE and _is_common_chinese(sample):
        return "gb18030"
    from charset_normalizer import from_bytes  # 70 ms, and needed for old files alone

    best = from_bytes(sample, cp_isolation=_EASTERN).best()
    return best.encoding if best else None


def _is_common_chinese(sample: bytes) -> bool:
    """Every high byte belongs to a pair of GB 2312's punctuation or of its 3,755 everyday characters."""
    return all(
        len(run) % 2 == 0 and all(0xA1 <= lead <= 0xD7 and trail >= 0xA1 for lead, trail in zip(run[::2], run[1::2], strict=True))
        for run in _RUN.findall(sample)
    )
