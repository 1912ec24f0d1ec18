"""The bytes of a file: unpacked, without byte order mark, as UTF-8 where they were UTF-16 or UTF-32; chunk by chunk.

Compression is told by the first bytes, never by the name. A file that is cut short gives everything up to the cut, and
`tear` says what happened there; how much memory a chunk takes is bounded, whatever the ratio of a hostile archive.
Knows nothing of lines. Next: `read_lines.py`.
"""

import bz2
import codecs
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from training.errors import DataError

CHUNK_BYTES = 1 << 18
HEAD_BYTES = 1 << 16

_ZSTD_FEED = 2048  # four bytes of zstd can stand for 128 KiB, and its decompressor has no bound of its own
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)


def unreadable(name: str, done_bytes: int, error: Exception) -> DataError:
    """The error for a file or a server that fails while it is being read."""
    what = f"{name} stopped being readable after {done_bytes:,} bytes: {type(error).__name__}: {error}"
    return DataError(what, do="try again; if it stays so, copy the file here first")


class _Torn(Exception):
    """The packed bytes end, or stop making sense."""


class ByteStream:
    """Iterate once for the bytes in chunks.

    Args:
        file: open for reading.
        name: of the file, for errors.
        already: what was read from it to see what it is; not every server lets one go back.

    Attributes:
        head: the first bytes, at least `HEAD_BYTES` or the whole file; they come again when iterating.
        head_is_all: nothing comes after `head`.
        encoding: `utf-8`, or what was turned into it.
        raw_bytes: taken from the file so far, packed.
        tear: after iterating, why the file ended before its time; empty when it did not.
        damaged: after iterating, whether the tear is bytes that make no sense rather than bytes that are missing.

    Raises:
        DataError: the file stops being readable.
    """

    def __init__(self, file: BinaryIO, name: str, already: bytes = b"") -> None:
        self.raw_bytes, self.tear, self.damaged, self.head_is_all = 0, "", False, False
        self._file, self._name, self._already = file, name, already
        self._chunks = self._mended(self._unpacked())
        first = self._gather()
        mark, self.encoding = _encoding(first)
        if self.encoding != "utf-8":
            self._chunks = self._as_utf8(first[len(mark) :], self._chunks)
            self.head = self._gather()
        else:
            self.head = first[len(mark) :]

    def __iter__(self) -> Iterator[bytes]:
        yield self.head
        yield from self._chunks

    def _gather(self) -> bytes:
        head = b""
        self.head_is_all = False
        for chunk in self._chunks:
            head += chunk
            if len(head) >= HEAD_BYTES:
                return head
        self.head_is_all = True
        return head

    def _raw(self) -> Iterator[bytes]:
        while chunk := self._read():
            self.raw_bytes += len(chunk)
            yield chunk

    def _read(self) -> bytes:
        already, self._already = self._already, b""
        try:
            return already + self._file.read(CHUNK_BYTES)
        except Exception as error:  # noqa: BLE001  # each fsspec backend raises its own family
            raise unreadable(self._name, self.raw_bytes, error) from None

    def _mended(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks up to a tear, which is noted."""
        try:
            yield from chunks
        except _Torn as torn:
            self.tear = self.tear or str(torn)

    def _unpacked(self) -> Iterator[bytes]:
        raw = self._raw()
        first = next(raw, b"")
        packing = next((name for magic, name in _MAGIC.items() if first.startswith(magic)), "")
        if not packing:
            yield first
            yield from raw
            return
        try:
            yield from _unpack_zstd(first, raw) if packing == "zstd" else _unpack(packing, first, raw)
        except _Torn as torn:
            raise _Torn(f"the {packing} stream {torn}") from None
        except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
            self.damaged = True
            raise _Torn(f"the {packing} stream is damaged: {error}") from None

    def _as_utf8(self, first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.encoding)("surrogatepass")
        try:
            yield decoder.decode(first).encode("utf-8", "surrogatepass")
            for chunk in chunks:
                yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            self.tear = self.tear or f"the {self.encoding.upper()} text breaks off: {error.reason}"


def _encoding(head: bytes) -> tuple[bytes, str]:
    """(byte order mark, encoding). Without a mark, the zero bytes of the first two ASCII characters tell (RFC 4627, section 3)."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return mark, encoding
    zeros = "".join("0" if byte == 0 else "x" for byte in head[:4])
    guesses = {"x000": "utf-32-le", "000x": "utf-32-be", "x0x0": "utf-16-le", "0x0x": "utf-16-be"}
    return b"", guesses.get(zeros, "utf-8")


def _unpack(packing: str, first: bytes, raw: Iterator[bytes]) -> Iterator[bytes]:
    """Members one after another, as `cat a.gz b.gz` makes them; zeros after the last are padding."""
    data, inflate = first, _inflater(packing)
    while True:
        before = inflate.copy() if packing == "gzip" else None
        try:
            made = inflate.decompress(data, CHUNK_BYTES)
        except zlib.error:
            yield from _up_to_damage(before, data)
            raise
        yield made
        data = inflate.unconsumed_tail if packing == "gzip" else b""
        if inflate.eof:
            data = inflate.unused_data.lstrip(b"\0")
            while not data and (chunk := next(raw, b"")):
                data = chunk.lstrip(b"\0")
            if not data:
                return
            inflate = _inflater(packing)
        elif not data and (packing == "gzip" or inflate.needs_input):
            data = next(raw, b"")
            if not data and not made:  # zlib may still hold output when its input is used up
                raise _Torn("ends before its end mark")


def _up_to_damage(inflate: Any, data: bytes) -> Iterator[bytes]:
    """What zlib keeps to itself when a later byte of the same piece is wrong, such as a checksum at the very end."""
    for at in range(len(data)):
        try:
            yield inflate.decompress(data[at : at + 1])
        except zlib.error:
            return


def _inflater(packing: str) -> Any:
    """One of three classes that have no common base, and of which only zlib's has an `unconsumed_tail`."""
    return {"gzip": lambda: zlib.decompressobj(31), "bzip2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}[packing]()


def _unpack_zstd(first: bytes, raw: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard  # in no standard library before Python 3.14

    inflate = None
    for chunk in _chained(first, raw):
        for start in range(0, len(chunk), _ZSTD_FEED):
            data = chunk[start : start + _ZSTD_FEED]
            while data:
                inflate = inflate or zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
                try:
                    yield inflate.decompress(data)
                except zstandard.ZstdError as error:
                    raise ValueError(str(error)) from None
                data = inflate.unused_data if inflate.eof else b""
                inflate = None if inflate.eof else inflate
    if inflate is not None:
        raise _Torn("ends before its end mark")


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
