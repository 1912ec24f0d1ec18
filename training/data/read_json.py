"""JSON text to a value, strictly: every key once, no level too deep, no broken escape; and what stands for no number is null.

orjson is fast and lets the last of two equal keys win. Whether a key repeats is told without a second parser: outside of
strings a colon stands after each key and nowhere else, and what was lost takes its colons along. So the text has as many colons
as the value written again, if and only if nothing was lost; provided that no colon is written as an escape. Where the counts
differ, the slow parser decides and names the key. Knows nothing of files. Next: `read_jsonl.py`.
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson

from training.data.read_record import MAX_DEPTH, TooDeep, refuse_depth

_ESCAPED_COLON = b"\\u003"  # and of the characters 0 to 9, ; < = > ?, which nobody escapes either


class Fault(Exception):
    """Why a text is no row: a reason code and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def keys_are_unique(text: bytes, value: Any) -> bool:
    """Whether no key of `text`, whose value is `value`, stands twice. False also where this cannot tell; then `parse` can.

    Raises:
        TypeError: nested deeper than orjson writes, half a character, or an integer beyond 64 bits; `parse` names it.
    """
    return text.count(b":") == orjson.dumps(value).count(b":") and (b"\\" not in text or _ESCAPED_COLON not in text)


def parse(text: str, notes: Counter[str]) -> Any:
    """The value of `text`, with every fault by name. `NaN` and `Infinity` become null and are counted as `no_number`.

    Raises:
        Fault: not_json, duplicate_keys, too_deep, lone_surrogate.
    """
    odd: Counter[str] = Counter()
    try:
        value = decoder(odd, _unique).decode(text)
        refuse_depth(value)
        refuse_surrogates(value)
    except (RecursionError, TooDeep):
        raise Fault("too_deep", f"lists and objects are nested more than {MAX_DEPTH} levels deep") from None
    except json.JSONDecodeError as error:
        raise Fault("not_json", f"not JSON at character {error.pos + 1}: {error.msg}") from None
    except ValueError as error:
        raise Fault("not_json", f"not JSON that can be kept: {error}") from None
    notes.update(odd)
    return value


def decoder(odd: Counter[str], pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> json.JSONDecoder:
    """A parser that makes null of what is no number, and counts it in `odd`."""
    return json.JSONDecoder(object_pairs_hook=pairs, parse_constant=lambda _: odd.update(no_number=1), parse_float=_finite(odd))


def refuse_surrogates(value: Any) -> None:
    """Raises: Fault when an escape such as `\\ud83d` stands without its other half, which no UTF-8 file can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Fault("lone_surrogate", f"the escape \\u{ord(error.object[error.start]):04x} is half a character") from None


def _finite(odd: Counter[str]) -> Any:
    def number(digits: str) -> float | None:
        value = float(digits)
        return value if value - value == 0 else odd.update(no_number=1)

    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise Fault("duplicate_keys", f"the key {twice[:100]!r} stands twice in one object, so one of its values would be lost")
    return values
