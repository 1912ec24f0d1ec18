"""JSON Lines to records: one JSON object a line, at the speed of orjson as long as the lines are sound.

A line that is not sound is looked at again, slowly, to say what is wrong with it. Next: `read_json.py` for the duplicate
keys, `read_json_array.py` for files that are one JSON value.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from training.data.read_bytes import ByteStream
from training.data.read_json import Fault, keys_are_unique, parse
from training.data.read_lines import Line, TooLong, line_blocks
from training.data.read_record import Read, Reading, Record, kind_of
from training.data.rows import Place, Rejected

_EVIDENCE_LINES = 1000  # of what follows a line that is not UTF-8, to tell its encoding


def read_json_lines(stream: ByteStream, reading: Reading) -> Iterator[Read]:
    """Yield a `Record` or a `Rejected` for each line that is not blank, then one `Rejected` for a tear."""
    name, number = reading.name, 0
    for lines in line_blocks(stream, reading.max_row_bytes):
        bytes_read = reading.bytes_before + stream.raw_bytes
        for offset, line in enumerate(lines):
            number += 1
            try:
                values = orjson.loads(line)  # type: ignore[arg-type]  # refuses a TooLong as it refuses anything else
                if type(values) is dict and keys_are_unique(line, values):  # type: ignore[arg-type]
                    yield Record(Place(name, number), values, bytes_read)
                    continue
            except (orjson.JSONDecodeError, TypeError):
                pass
            outcome = _look_again(line, lines[offset + 1 : offset + _EVIDENCE_LINES], number, reading)
            if outcome is not None:
                yield Record(Place(name, number), outcome, bytes_read) if isinstance(outcome, dict) else outcome
    if stream.tear:
        yield torn(stream, reading, number + 1)


def torn(stream: ByteStream, reading: Reading, line: int) -> Rejected:
    """The one `Rejected` for a file that ends before its time."""
    reason = "damaged_file" if stream.damaged else "truncated_file"
    return reading.reject(line, reason, f"{stream.tear}; the rows before that are read, those after it are not")


def _look_again(line: Line, beside: Sequence[Line], number: int, reading: Reading) -> dict[str, Any] | Rejected | None:
    """The row's values, a `Rejected`, or None for a blank line."""
    if isinstance(line, TooLong):
        return reading.too_large(number, line.size)
    if not line.strip(b" \t\r"):
        return None
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        decoded = reading.decoder.legacy(line, beside)
        if decoded is None:
            return reading.reject(number, "not_utf8", f"byte {error.start + 1} of the row is not UTF-8; save the file as UTF-8", line)
        text = decoded
    return row_values(text, number, reading)


def row_values(text: str, number: int, reading: Reading) -> dict[str, Any] | Rejected:
    """The object that `text` holds, or a `Rejected`."""
    try:
        value = parse(text, reading.notes)
    except Fault as fault:
        return reading.reject(number, fault.reason, fault.detail, text)
    return value if isinstance(value, dict) else not_an_object(value, number, reading)


def not_an_object(value: Any, number: int, reading: Reading) -> Rejected:
    """The `Rejected` of a row that is a bare text, number or list."""
    return reading.reject(number, "not_object", f"a row is a JSON object, this is {kind_of(value)}", value)
