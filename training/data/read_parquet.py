"""Parquet to records, a few thousand rows at a time; a row's number stands for its line.

Knows nothing of folders or formats. Next: `readers.py`.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

from training.data.read_record import Read, Reading, record_of
from training.errors import DataError

MAGIC = b"PAR1"
_BATCH_ROWS, _BATCH_BYTES = 1024, 1 << 25


def read_parquet(file: BinaryIO, reading: Reading, size_bytes: int | None) -> Iterator[Read]:
    """Yield a `Record` or a `Rejected` for each row, and one `Rejected` for the rest of a group of rows that cannot be read.

    Raises:
        DataError: not a whole Parquet file.
    """
    table = _opened(file, reading.name)
    rows, done = int(table.metadata.num_rows), 0
    batch_rows = _batch_rows(table.metadata)

    def bytes_read() -> int:
        return reading.bytes_before + (size_bytes or 0) * done // max(1, rows)

    for group in range(table.num_row_groups):
        end = done + int(table.metadata.row_group(group).num_rows)
        try:
            for batch in table.iter_batches(batch_size=batch_rows, row_groups=[group], use_threads=False):
                for row in _values(batch):
                    done += 1
                    yield record_of(reading, done, row, bytes_read)
        except Exception as error:  # noqa: BLE001  # Arrow raises OSError, ValueError, KeyError and its own for damaged pages
            yield reading.reject(done + 1, "damaged_file", f"rows {done + 1:,} to {end:,} cannot be read: {_first_line(error)}")
        done = end


def _opened(file: BinaryIO, name: str) -> Any:
    import pyarrow as pa  # half a second, and needed for Parquet alone
    from pyarrow import parquet

    try:
        file.seek(0)
        table = parquet.ParquetFile(file, pre_buffer=False)
        columns = table.schema_arrow.names
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{name} is not a whole Parquet file: {_first_line(error)}",
            why="Parquet keeps its table of contents at the end, so a file that was cut off has none",
            do="copy or write the file again",
        ) from None
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise DataError(f"{name} has more than one column called {', '.join(twice)[:200]}", do="give each column a name of its own")
    return table


def _batch_rows(metadata: Any) -> int:
    """Fewer rows at a time where they are large."""
    size: int = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    fitting = _BATCH_BYTES * max(1, int(metadata.num_rows)) // max(1, size)
    return max(1, min(_BATCH_ROWS, fitting))


def _values(batch: Any) -> list[dict[str, Any]]:
    """Rows as dicts. Dates and times go through Arrow's own text, because Python's types hold no nanoseconds."""
    import pyarrow as pa

    for number, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) or pa.types.is_date(field.type) or pa.types.is_time(field.type):
            batch = batch.set_column(number, field.name, batch.column(number).cast(pa.string()))
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
