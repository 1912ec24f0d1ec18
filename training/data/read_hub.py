"""A Hugging Face dataset to records, streamed: nothing but the rows at hand is held, nothing is written to disk.

Only for `dataset:` in a recipe; the library behind it takes seconds to import. Next: `readers.py`.
"""

from collections.abc import Iterator
from typing import Any

from training.data.read_record import Read, Reading, record_of
from training.errors import DataError


def read_dataset(name: str, subset: str | None, split: str, reading: Reading) -> Iterator[Read]:
    """Yield a `Record` or a `Rejected` for each row of the split.

    Raises:
        DataError: no hub can be reached, or it has no such dataset, subset or split.
    """
    seen = 0

    def bytes_read() -> int:
        return reading.bytes_before

    try:
        for seen, values in enumerate(_rows(name, subset, split), start=1):
            yield record_of(reading, seen, dict(values), bytes_read)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001  # the hub, its file systems and its builders each raise their own family
        raise DataError(
            f"{reading.name} cannot be read{f' after {seen:,} rows' if seen else ''}: {type(error).__name__}: {error}",
            do="check name, subset and split, and that a hub can be reached from here; otherwise download the files and use `path`",
        ) from None


def _rows(name: str, subset: str | None, split: str) -> Iterator[dict[str, Any]]:
    import datasets  # four seconds

    yield from datasets.load_dataset(name, subset, split=split, streaming=True)
