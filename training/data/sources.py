"""Where rows come from: the recipe's section for one source, and its rows as a stream with bounded memory.

A source is a file, a folder, a glob, an fsspec address, an SQL query or a hub dataset. Every row of it comes out as a `Record`
or as a `Rejected`, in order; what else happened on the way (old encodings, files left out) is counted beside them.
Knows nothing of what a row means. Next: `readers.py` for files, then `formats.py` for the rows.
"""

import codecs
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, field_serializer, field_validator, model_validator

from training.data.read_files import DataFile, FoundFiles, SkippedFile, find_files
from training.data.read_hub import read_dataset
from training.data.read_record import Read, Reading, Record
from training.data.read_secrets import masked
from training.data.read_sql import read_query
from training.data.read_text import Decoder
from training.data.readers import EmptyFile, ReadOptions, empty_file, read_file
from training.errors import DataError
from training.sections import Section

Column = Literal[
    "question", "answer", "system", "context", "prompt", "completion", "chosen", "rejected", "label",
    "messages", "conversations", "instruction", "input", "output", "history", "tools",
]  # fmt: skip
FormatName = Literal["auto", "alpaca", "sharegpt", "messages", "prompt_completion", "question_answer", "preference", "kto"]
Word = Annotated[str, Field(min_length=1)]

_ROWS_UNTIL_COLUMNS_ARE_SEEN = 1000  # JSON rows need not all have the same keys


_PATH_SCHEMA = {"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]}


def _path_or_url(value: Any) -> Any:
    if value == "":
        raise ValueError("is empty")
    return Path(value) if isinstance(value, str) and "://" not in value else value


class SourceSection(Section):
    """One source of rows. Exactly one of `path`, `sql` and `dataset`."""

    # Pydantic's messages quote what was given, and a database's address may hold a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    path: Annotated[Path | str | None, PlainValidator(_path_or_url), WithJsonSchema(_PATH_SCHEMA)] = Field(
        default=None, description="file, folder, glob, or any address that fsspec knows (`s3://…`, `https://…`); `${NAME}` is filled in"
    )
    sql: Word | None = Field(default=None, description="a query; each row of its result is a row")
    database: Word | None = Field(
        default=None, description="SQLAlchemy address for `sql`, as `postgresql://user:${PASSWORD}@host/name`", repr=False
    )
    dataset: Word | None = Field(default=None, description="a Hugging Face dataset, as `org/name`; streamed")
    subset: Word | None = Field(default=None, description="the dataset's configuration, where it has several")
    split: Word = Field(default="train", description="the dataset's split")
    format: FormatName = Field(default="auto", description="how a row is written; auto decides row by row, by its keys")
    columns: dict[Column, Word] = Field(default={}, description="our name of a column: the source's name of it")
    tools: Literal["keep", "refuse"] = Field(default="refuse", description="rows with tool calls are kept, or refused by name")
    encoding: Word = Field(default="auto", description="of lines that are not UTF-8: auto detects it, utf-8 refuses them, or a codec")
    weight: float = Field(default=1.0, gt=0, le=1000, description="how often rows of this source are used, relative to the others")
    name: Word | None = Field(default=None, description="what reports call this source; left out, its path, query or dataset")
    max_rows: int | None = Field(default=None, ge=1, description="rows that are read at most, from the start; null reads all")
    max_row_bytes: int = Field(default=1 << 23, ge=1 << 16, le=1 << 30, description="bytes of a row; a larger one is rejected unread")

    @model_validator(mode="after")
    def _is_one_source(self) -> Self:
        given = [key for key in ("path", "sql", "dataset") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of path, sql and dataset (given: {', '.join(given) or 'none'})")
        if (self.sql is None) != (self.database is None):
            raise ValueError("sql and database go together: a query and the database that it asks")
        if self.dataset is None and (self.subset is not None or self.split != "train"):
            raise ValueError("subset and split belong to dataset")
        return self

    @field_validator("columns")
    @classmethod
    def _columns_are_distinct(cls, columns: dict[str, str]) -> dict[str, str]:
        if len(set(columns.values())) < len(columns):
            raise ValueError("two of our names are mapped to the same column")
        return columns

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        try:
            if encoding != "auto" and not getattr(codecs.lookup(encoding), "_is_text_encoding", True):
                raise LookupError
        except (LookupError, ValueError):
            raise ValueError("is no text encoding of Python; some that are: gb18030, big5, shift_jis, euc_kr, cp1251, cp1252") from None
        return encoding

    @field_serializer("database", "path")
    def _without_password(self, value: Path | str | None) -> Path | str | None:
        return masked(value) if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """What reports call the source; never with a password."""
        if self.name:
            return self.name
        if self.path is not None:
            return (self.path.name or str(self.path)) if isinstance(self.path, Path) else masked(self.path)
        return f"{self.dataset}[{self.split}]" if self.dataset else f"query of {masked(self.database or '')}"


class Source:
    """Iterate once for the rows.

    Attributes:
        section: as in the recipe.
        files: those that are read, in this order; empty for a query or a dataset.
        skipped: files that lay there and are not read; complete after iterating.
        notes: after iterating, what was read otherwise than written (`decoded_gb18030`, `no_number`: NaN read as null).
        size_bytes: on disk, to compare `Record.bytes_read` with; None where it is not known.
        rows: yielded so far.
    """

    def __init__(self, section: SourceSection) -> None:
        found = find_files(section.path) if section.path is not None else FoundFiles(())
        self.section, self._many = section, found.many
        self.files: tuple[DataFile, ...] = found.files
        self.skipped: list[SkippedFile] = list(found.skipped)
        self.notes: Counter[str] = Counter()
        self.size_bytes = _sum_of_sizes(found)
        self.rows = 0

    def __iter__(self) -> Iterator[Read]:
        section = self.section
        rows = islice(self._files() if section.path is not None else self._query_or_dataset(), section.max_rows)
        for row in _Mapped(section).rows(rows) if section.columns else rows:
            self.rows += 1
            yield row
        if not self.rows:
            raise empty_file(section.label)

    def _files(self) -> Iterator[Read]:
        section, bytes_before = self.section, 0
        options = ReadOptions(section.max_row_bytes, section.encoding, frozenset(section.columns.values()))
        for file in self.files:
            try:
                yield from read_file(file, options, self.notes, bytes_before)
            except EmptyFile:
                if not self._many:
                    raise
                self.skipped.append(SkippedFile(file.path, "holds no rows"))
            bytes_before += file.size_bytes or 0

    def _query_or_dataset(self) -> Iterator[Read]:
        section = self.section
        reading = Reading(section.label, section.max_row_bytes, Decoder("utf-8", self.notes), self.notes)
        if section.dataset is not None:
            return read_dataset(section.dataset, section.subset, section.split, reading)
        return read_query(section.database or "", section.sql or "", reading)


def open_source(section: SourceSection) -> Source:
    """Find what the section names, and get ready to read it.

    Raises:
        DataError: nothing is there. Iterating raises it too, when it cannot be read or holds no row.
    """
    return Source(section)


def size_bytes(section: SourceSection) -> int | None:
    """Bytes on disk of the source's files; None for a query, a dataset, or a server that does not say."""
    return _sum_of_sizes(find_files(section.path)) if section.path is not None else None


def _sum_of_sizes(found: FoundFiles) -> int | None:
    sizes = [file.size_bytes for file in found.files]
    return sum(size or 0 for size in sizes) if sizes and None not in sizes else None


class _Mapped:
    """Renames the columns of the section's map to our names."""

    def __init__(self, section: SourceSection) -> None:
        self._ours: dict[str, str] = {theirs: ours for ours, theirs in section.columns.items()}
        self._unseen, self._seen = set(self._ours), dict[str, None]()
        self._label = section.label

    def rows(self, rows: Iterator[Read]) -> Iterator[Read]:
        count = 0
        for count, row in enumerate(rows, start=1):
            if isinstance(row, Record):
                if self._unseen:
                    self._look(row)
                yield replace(row, values=self._renamed(row.values))
            else:
                yield row
            if self._unseen and count == _ROWS_UNTIL_COLUMNS_ARE_SEEN:
                self._refuse(count)
        if self._unseen and self._seen:
            self._refuse(count)

    def _look(self, row: Record) -> None:
        self._unseen.difference_update(row.values)
        self._seen.update(dict.fromkeys(list(row.values)[:100]))

    def _renamed(self, values: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in values.items() if key not in self._ours}
        return kept | {ours: values[theirs] for theirs, ours in self._ours.items() if theirs in values}

    def _refuse(self, rows: int) -> None:
        missing = sorted(self._unseen)
        near = {name: get_close_matches(name, self._seen, n=1, cutoff=0.5) for name in missing}
        hints = "; ".join(f"{self._ours[name]}: {name}" + (f" (nearest is {near[name][0]})" if near[name] else "") for name in missing)
        raise DataError(
            f"{self._label}: `columns` names a column that none of the first {rows:,} rows has: {hints}",
            why="rows without it cannot be told apart from rows that lack an answer",
            do=f"the columns there are: {', '.join(map(str, list(self._seen)[:30]))}",
        )
