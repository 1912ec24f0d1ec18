"""Whether a new dataset is still the kind of data that the champion learnt from: length, language, topic, what was turned away, how much.

Distributions are compared by the population stability index over stated bins, with the bands in common use: below 0.1
nothing moved, from 0.25 on much did. The index of two samples of one and the same distribution is not zero but about
(1/n + 1/m) · χ²(bins − 1); a finding must lie above the 99 % point of that as well, and below `min_rows` nothing is judged.
Pure: two profiles in, findings out. Next: `report.py` shows them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.data.profile import DataProfile
from training.data.profile_histogram import Histogram
from training.data.report_text import percent
from training.errors import DataError
from training.sections import Section

Level = Literal["ok", "unjudged", "warn", "stop"]
LEVELS: tuple[Level, ...] = ("ok", "unjudged", "warn", "stop")

_BINS = 10
_RARE_SHARE = 0.01  # categories below it on both sides are one bin: a bin needs rows to say anything
_CERTAINTY = NormalDist().inv_cdf(0.99)
_MOVED_NAMES = 3


class DriftSection(Section):
    """What is done when the data is no longer like the champion's."""

    policy: Literal["off", "warn", "stop"] = Field(default="warn", description="off compares nothing, warn reports, stop ends the run")
    psi_warn: float = Field(default=0.1, gt=0, le=10, description="population stability index from which on a warning is given")
    psi_stop: float = Field(default=0.25, gt=0, le=10, description="population stability index from which on the run may be stopped")
    rejected_warn: float = Field(default=0.05, gt=0, le=1, description="rise of the share of rows turned away (0.05 is 5 points): warning")
    rejected_stop: float = Field(default=0.20, gt=0, le=1, description="the same: stop")
    fewer_rows_warn: float = Field(default=0.5, gt=0, le=1, description="share of the champion's rows that is gone: warning")
    fewer_rows_stop: float = Field(default=0.8, gt=0, le=1, description="the same: stop")
    min_rows: int = Field(default=200, ge=10, le=10**7, description="rows on each side below which a distribution is not judged")
    too_few_rows: Literal["pass", "stop"] = Field(default="pass", description="under policy stop: what too few rows to be judged mean")

    @model_validator(mode="after")
    def _stop_is_not_below_warn(self) -> Self:
        pairs = [("psi", self.psi_warn, self.psi_stop), ("rejected", self.rejected_warn, self.rejected_stop)]
        pairs.append(("fewer_rows", self.fewer_rows_warn, self.fewer_rows_stop))
        if wrong := [f"`{name}_stop` is {stop:g}, below `{name}_warn`, {warn:g}" for name, warn, stop in pairs if stop < warn]:
            raise ValueError("; ".join(wrong))
        return self


class DriftFinding(BaseModel):
    """One measure, compared. `value` is in `unit`; it is None where nothing could be judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    level: Level
    value: float | None
    unit: str
    before: str
    after: str
    what: str
    why: str = ""
    do: str = ""


@dataclass(frozen=True)
class Drift:
    """All findings about one new dataset, worst first."""

    policy: Literal["off", "warn", "stop"]
    findings: tuple[DriftFinding, ...]

    @property
    def level(self) -> Level:
        """The worst level of all findings."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="ok")

    def require_none(self) -> None:
        """Raises: DataError naming every finding that stops the run; only under policy stop are there any."""
        stops = [finding for finding in self.findings if finding.level == "stop"]
        if stops:
            raise DataError(
                "the data has drifted from the champion's:\n" + "\n".join(f"  {finding.what}" for finding in stops),
                why=" ".join(dict.fromkeys(finding.why for finding in stops)),
                do=" ".join(dict.fromkeys(finding.do for finding in stops)) + " If the change is meant, set `drift.policy: warn`.",
            )


def compare(new: DataProfile, old: DataProfile, section: DriftSection) -> Drift:
    """Compare a new dataset with the champion's."""
    if section.policy == "off":
        return Drift("off", ())
    findings = (
        _rows(new, old, section),
        _rejected(new, old, section),
        _lengths(new, old, section),
        _categories("language", new.languages, old.languages, section),
        _categories("topic", new.topics, old.topics, section),
    )
    judged = [_under_policy(finding, section) for finding in findings]
    return Drift(section.policy, tuple(sorted(judged, key=lambda finding: -LEVELS.index(finding.level))))


def stability_index(new: Sequence[int], old: Sequence[int]) -> float:
    """Population stability index Σ (p − q) · ln(p / q) of counts over the same bins.

    Half a row is added to every bin, so that an empty one gives a large number and not an infinite one.
    """
    bins = len(new)
    p, q = ([(count + 0.5) / (sum(counts) + 0.5 * bins) for count in counts] for counts in (new, old))
    return sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))


def index_by_chance(new_rows: int, old_rows: int, bins: int) -> float:
    """The index that two samples of one distribution stay below in 99 of 100 cases.

    It is distributed about as (1/n + 1/m) · χ² with bins − 1 degrees of freedom; the quantile is Wilson and Hilferty's.
    """
    degrees = bins - 1
    if degrees < 1:
        return 0.0
    quantile = degrees * (1 - 2 / (9 * degrees) + _CERTAINTY * math.sqrt(2 / (9 * degrees))) ** 3
    return (1 / new_rows + 1 / old_rows) * quantile


def _under_policy(finding: DriftFinding, section: DriftSection) -> DriftFinding:
    if section.policy == "warn" and finding.level == "stop":
        return finding.model_copy(update={"level": "warn"})
    too_few = finding.level == "unjudged" and finding.unit == "rows"
    if too_few and section.policy == "stop" and section.too_few_rows == "stop":
        return finding.model_copy(update={"level": "stop"})
    return finding


def _level(value: float, warn: float, stop: float) -> Level:
    return "stop" if value >= stop else "warn" if value >= warn else "ok"


def _rows(new: DataProfile, old: DataProfile, section: DriftSection) -> DriftFinding:
    gone = 1 - new.rows_used / old.rows_used if old.rows_used else 0.0
    level = _level(gone, section.fewer_rows_warn, section.fewer_rows_stop)
    if level == "stop" and new.rows_used < section.min_rows and section.too_few_rows == "pass":
        level = "warn"  # so small a dataset is perhaps meant as a trial
    moved = f"{percent(abs(gone))} {'fewer' if gone > 0 else 'more'}" if gone else "as many as before"
    return DriftFinding(
        measure="rows",
        level=level,
        value=-gone,
        unit="share",
        before=f"{old.rows_used:,}",
        after=f"{new.rows_used:,}",
        what=f"rows used: {old.rows_used:,} → {new.rows_used:,} ({moved})",
        why="" if level == "ok" else "A model trained on much less forgets what the missing rows taught.",
        do="" if level == "ok" else "See whether a source is missing or was cut off.",
    )


def _rejected(new: DataProfile, old: DataProfile, section: DriftSection) -> DriftFinding:
    """The rise of the share of rows turned away, against chance by the two-proportion z test."""
    before, after = percent(old.rejected_share), percent(new.rejected_share)
    if short := _too_few("rejected share", min(new.rows_in, old.rows_in), section, before, after):
        return short
    rise = new.rejected_share - old.rejected_share
    turned_away = sum(new.rejected.values()) + sum(old.rejected.values())
    pooled = turned_away / (new.rows_in + old.rows_in)
    chance = _CERTAINTY * math.sqrt(pooled * (1 - pooled) * (1 / new.rows_in + 1 / old.rows_in))
    level = _level(rise, section.rejected_warn, section.rejected_stop) if rise > chance else "ok"
    shares = {code: rows / new.rows_in - old.rejected.get(code, 0) / old.rows_in for code, rows in new.rejected.items()}
    most = max(shares, key=lambda code: shares[code], default="")
    mostly = f", mostly `{most}` ({100 * shares[most]:+.1f} points)" if level != "ok" else ""
    return DriftFinding(
        measure="rejected share",
        level=level,
        value=rise,
        unit="share",
        before=before,
        after=after,
        what=f"rows turned away: {before} → {after} ({100 * rise:+.1f} points{mostly})",
        why="" if level == "ok" else "The source is no longer written as it was, and what is left may be a biased part of it.",
        do="" if level == "ok" else f"Look at the rows with `{most}` in rejected.jsonl.",
    )


def _lengths(new: DataProfile, old: DataProfile, section: DriftSection) -> DriftFinding:
    """Tokens where both were counted by one tokenizer, characters otherwise; bins at the champion's deciles."""
    same = bool(new.tokenizer and new.tokenizer == old.tokenizer and new.tokens.rows and old.tokens.rows)
    ours, theirs, unit = (new.tokens, old.tokens, "tokens") if same else (new.characters, old.characters, "characters")
    before, after = (f"median {lengths.quantile(0.5):,}, 95 % below {lengths.quantile(0.95):,} {unit}" for lengths in (theirs, ours))
    if short := _too_few("length", min(ours.rows, theirs.rows), section, before, after):
        return short
    edges = _deciles(theirs)
    return _judged("length", before, after, ours.counts_between(edges), theirs.counts_between(edges), section, f"length in {unit}")


def _categories(measure: str, new: Mapping[str, int], old: Mapping[str, int], section: DriftSection) -> DriftFinding:
    rows = sum(new.values()), sum(old.values())
    if not all(rows):
        which = "either dataset" if not any(rows) else "the new dataset" if not rows[0] else "the champion's dataset"
        return DriftFinding(
            measure=measure, level="unjudged", value=None, unit="PSI", before="–", after="–", what=f"{measure}: not measured in {which}"
        )
    moved = sorted({*new, *old}, key=lambda name: (-abs(new.get(name, 0) / rows[0] - old.get(name, 0) / rows[1]), name))[:_MOVED_NAMES]
    after, before = (", ".join(f"{name} {percent(counts.get(name, 0) / sum(counts.values()))}" for name in moved) for counts in (new, old))
    if short := _too_few(measure, min(rows), section, before, after):
        return short
    common = [name for name in sorted({*new, *old}) if max(new.get(name, 0) / rows[0], old.get(name, 0) / rows[1]) >= _RARE_SHARE]
    ours, theirs = ([counts.get(name, 0) for name in common] for counts in (new, old))
    rare = [total - sum(counts) for total, counts in zip(rows, (ours, theirs), strict=True)]
    if any(rare):
        ours, theirs = [*ours, rare[0]], [*theirs, rare[1]]
    return _judged(measure, before, after, ours, theirs, section, measure)


def _judged(
    measure: str, before: str, after: str, ours: Sequence[int], theirs: Sequence[int], section: DriftSection, name: str
) -> DriftFinding:
    index, chance = stability_index(ours, theirs), index_by_chance(sum(ours), sum(theirs), len(ours))
    level = _level(index, section.psi_warn, section.psi_stop) if index > chance else "ok"
    why, do = _ADVICE[measure] if level != "ok" else ("", "")
    moved = f"{before} → {after}" if level != "ok" else "as before"
    return DriftFinding(
        measure=measure,
        level=level,
        value=index,
        unit="PSI",
        before=before,
        after=after,
        what=f"{name}: {moved} (PSI {index:.3f} over {len(ours)} bins; chance alone stays below {chance:.3f})",
        why=why,
        do=do,
    )


def _too_few(measure: str, rows: int, section: DriftSection, before: str, after: str) -> DriftFinding | None:
    if rows >= section.min_rows:
        return None
    return DriftFinding(
        measure=measure,
        level="unjudged",
        value=None,
        unit="rows",
        before=before,
        after=after,
        what=f"{measure}: cannot be judged, one side has {rows:,} rows and {section.min_rows:,} are needed",
        do="Compare by eye, or gather more rows.",
    )


def _deciles(lengths: Histogram) -> list[int]:
    """Lower edges of at most ten bins that hold about equally many of the champion's rows."""
    return [0, *sorted({lengths.quantile(number / _BINS) + 1 for number in range(1, _BINS)} - {0})]


_ADVICE = {
    "length": (
        "Answers of another length are answers of another kind, and the model's own will follow.",
        "See in the report which source brings the longer or shorter rows.",
    ),
    "language": (
        "The model answers in the languages it was taught, in these shares.",
        "Weigh the sources to the mix you serve, or set `languages` to those wanted.",
    ),
    "topic": (
        "What is taught less is known less: the gate's suite may not cover what came in its place.",
        "Weigh the topics with `balance.topic_weights`, and see that the suite asks about the new ones.",
    ),
}
