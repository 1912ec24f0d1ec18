"""What a dataset looks like, in numbers small enough to keep: the part of a preparation that is compared, drawn and kept.

`data_report.json` in the dataset folder holds one `DataProfile`; the next run compares with it. It holds no clock time and
no folder, so that the same rows give the same bytes. No text of a row is in it unmasked. Knows nothing of how it
was measured; next: `profile_builder.py`, then `report.py` and `drift.py`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.atomic import write_text
from training.data.balance import SourceShare
from training.data.profile_histogram import Histogram
from training.data.reasons import CHOSEN_AWAY, REASONS
from training.errors import RecordError

PROFILE = "data_report.json"
PrivacyMode = Literal["mask", "drop_row", "count", "off"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FormatSeen(_Value):
    """A format found in a source, and by what it was recognised."""

    name: str
    why: str
    rows: int = Field(ge=0)


class UnreadFile(_Value):
    """A file that lay in a source's folder and was not read."""

    name: str
    why: str


class HowRead(_Value):
    """What of a source was read otherwise than it is written, or not at all."""

    otherwise: dict[str, int] = Field(
        default_factory=dict, description="`decoded_<encoding>`: lines that were not UTF-8; `no_number`: NaN and the like, read as null"
    )
    unread: tuple[UnreadFile, ...] = Field(default=(), description="the first files that were left out, hidden ones last")
    unread_files: int = Field(default=0, ge=0)


class SourceProfile(_Value):
    """How one source's rows ended. Law: rows_in == kept + changed + sum(dropped.values())."""

    name: str
    formats: tuple[FormatSeen, ...] = ()
    read: HowRead = HowRead()
    rows_in: int = Field(ge=0)
    kept: int = Field(ge=0, description="rows used as they were")
    changed: int = Field(ge=0, description="rows used after at least one change")
    dropped: dict[str, int] = Field(default_factory=dict, description="reason code -> rows")
    changes: dict[str, int] = Field(default_factory=dict, description="change -> rows; a row may count under several")

    @model_validator(mode="after")
    def _every_row_ended(self) -> Self:
        if self.rows_in != self.kept + self.changed + sum(self.dropped.values()):
            raise ValueError(f"{self.name}: {self.rows_in} rows in, but {self.kept} kept, {self.changed} changed, {self.dropped} dropped")
        return self


class DroppedExample(_Value):
    """One of the first rows left out for a reason; `detail` is masked."""

    file: str
    line: int
    detail: str


class Sample(_Value):
    """A text before and after cleaning; personal data is masked on both sides."""

    file: str
    line: int
    changes: tuple[str, ...]
    before: str
    after: str


class DuplicateCounts(_Value):
    """Groups of rows that say the same; one row of each group is kept."""

    sought: tuple[Literal["exact", "near"], ...] = Field(default=("exact", "near"), description="which were looked for")
    exact_clusters: int = Field(default=0, ge=0)
    near_clusters: int = Field(default=0, ge=0)
    largest_cluster: int = Field(default=0, ge=0, description="rows, the kept one counted")
    across_sources: int = Field(default=0, ge=0, description="clusters with rows of more than one source")
    conflicting: int = Field(default=0, ge=0, description="rows whose question another row answers differently")


class LeakedPrompt(_Value):
    """A prompt of an evaluation suite that rows overlap; they were dropped as `leaked`, unless the recipe only reports them."""

    suite: str
    prompt_id: str
    kind: str = Field(description="how they overlap: exact, near, containment, …")
    rows: int = Field(ge=1)
    file: str = Field(description="of the first such row")
    line: int


class DataProfile(_Value):
    """One prepared dataset in numbers. Laws: counted lengths == rows kept; what was dropped has a known reason."""

    schema_version: Literal[1] = 1
    tokenizer: str = Field(default="", description="whose tokens were counted; empty when none was at hand")
    max_length: int | None = Field(default=None, description="tokens per row; longer rows were dropped")
    sources: tuple[SourceProfile, ...] = ()
    train_rows: int = Field(default=0, ge=0, description="repeats counted")
    validation_rows: int = Field(default=0, ge=0)
    preference_rows: int = Field(default=0, ge=0)
    repeated_rows: int = Field(default=0, ge=0, description="of the training rows, those that are a repeat of another")
    fold: str = Field(default="", description="which fold was held back, in words; empty where none is, or a fixed share")
    tokens: Histogram = Field(default_factory=Histogram, description="tokens per kept row")
    tokens_refused: Histogram = Field(default_factory=Histogram, description="tokens per row dropped for its length")
    characters: Histogram = Field(default_factory=Histogram, description="characters per kept row")
    loss_tokens: int = Field(default=0, ge=0, description="tokens that bear loss, over all kept rows")
    languages: dict[str, int] = Field(default_factory=dict, description="language -> kept rows")
    languages_refused: dict[str, int] = Field(default_factory=dict, description="language -> rows dropped for it")
    topics: dict[str, int] = Field(default_factory=dict, description="topic -> kept rows")
    privacy: PrivacyMode = Field(default="mask", description="what was done with personal data; off if it was not looked for")
    masked: dict[str, int] = Field(default_factory=dict, description="kind of personal data -> times found in kept rows")
    masked_rows: int = Field(default=0, ge=0, description="kept rows in which there was some")
    terms: dict[str, int] = Field(default_factory=dict, description="term of the glossary that was rewritten -> times, in all rows read")
    adverts: dict[str, int] = Field(default_factory=dict, description="sentence taken out as an advert, masked -> times, in all rows read")
    duplicates: DuplicateCounts = Field(default_factory=DuplicateCounts)
    suites: tuple[str, ...] = Field(default=(), description="evaluation suites that the rows were compared with")
    leaks: tuple[LeakedPrompt, ...] = ()
    balance: tuple[SourceShare, ...] = ()
    examples: dict[str, tuple[DroppedExample, ...]] = Field(default_factory=dict, description="reason code -> first rows")
    samples: tuple[Sample, ...] = ()

    @model_validator(mode="after")
    def _reasons_are_known(self) -> Self:
        if unknown := self.dropped.keys() - REASONS.keys():
            raise ValueError(f"no reason is called {', '.join(sorted(unknown))}")
        return self

    @property
    def rows_in(self) -> int:
        """Rows read, of all sources."""
        return sum(source.rows_in for source in self.sources)

    @property
    def rows_used(self) -> int:
        """Rows that went into the dataset, repeats not counted."""
        return sum(source.kept + source.changed for source in self.sources)

    @property
    def dropped(self) -> dict[str, int]:
        """Reason code -> rows over all sources, most rows first."""
        return _added(source.dropped for source in self.sources)

    @property
    def changes(self) -> dict[str, int]:
        """Change -> rows over all sources, most rows first."""
        return _added(source.changes for source in self.sources)

    @property
    def rejected(self) -> dict[str, int]:
        """As `dropped`, without the rows that the recipe's own weights and caps left aside."""
        return {code: rows for code, rows in self.dropped.items() if code not in CHOSEN_AWAY}

    @property
    def rejected_share(self) -> float:
        """Rows turned away, of those read (0–1)."""
        return sum(self.rejected.values()) / rows if (rows := self.rows_in) else 0.0

    @property
    def leaks_kept(self) -> int:
        """Rows that overlap a suite and are trained on all the same, because the recipe only reports them."""
        return max(0, sum(leak.rows for leak in self.leaks) - self.dropped.get("leaked", 0))

    @property
    def faults(self) -> dict[str, int]:
        """As `dropped`, only what is wrong with the files."""
        return {code: rows for code, rows in self.dropped.items() if not REASONS[code].quiet}


def write_profile(folder: Path, profile: DataProfile) -> Path:
    """Write `data_report.json` into a dataset folder and return its path."""
    write_text(folder / PROFILE, profile.model_dump_json() + "\n")
    return folder / PROFILE


def read_profile(folder: Path) -> DataProfile | None:
    """The profile in a dataset folder; None when the dataset was prepared without one.

    Raises:
        RecordError: it is there, and cannot be read.
    """
    path = folder / PROFILE
    try:
        return DataProfile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise RecordError(
            f"{path} cannot be read as the profile of a dataset: {error}",
            why="without it nobody can say whether the data has drifted",
            do="prepare that dataset again",
        ) from error


def most_first(counts: Mapping[str, int]) -> dict[str, int]:
    """The same counts, largest first and then by name, so that two runs write the same bytes."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _added(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return most_first(total)
