"""What to fix in the data, in sentences, most rows first, and the one line that says whether it can be trained on.

A fault of a file is always named; what a step of the recipe turned away only where it took at least one row in a hundred,
because a few long or double rows are nobody's concern. Pure. Next: `report.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from training.data.drift import Drift
from training.data.profile import DataProfile, SourceProfile
from training.data.read_files import HIDDEN
from training.data.reasons import CHOSEN_AWAY, REASONS
from training.data.report_text import counted, percent

_WORTH_A_WORD = 0.01
_ALWAYS_NAMED = frozenset({"leaked"})
_SHOWN_FILES = 3
_HARDLY_ANY_ROWS = 50
SMALL_DATA_ROWS = 1000
# Repairs that say something about where the data comes from: the name of the cleaning step and the advice.
_REPAIRS = {"mojibake": "were decoded with the wrong encoding, and mended. Export them as UTF-8: a repair is a guess"}


@dataclass(frozen=True)
class Verdict:
    """Whether the data can be used: `stop` cannot, `look` can but something is to be seen, `good` has nothing to fix."""

    level: Literal["good", "look", "stop"]
    headline: str
    detail: str


def to_fix(profile: DataProfile) -> list[str]:
    """What a person should do about the data, ordered by the rows it concerns; empty when there is nothing."""
    if not profile.rows_in:
        return ["There is no row in any source. Correct the paths, or put rows into the files."]
    found = [(rows, _reason(profile, code, rows)) for code, rows in profile.dropped.items() if _is_named(profile, code, rows)]
    found += [(source.rows_in, _useless(source)) for source in profile.sources if source.rows_in and not source.kept + source.changed]
    found += [
        (rows, f"{counted(rows, 'row')} ({percent(rows / profile.rows_in)}) {_REPAIRS[step]}.")
        for step, rows in profile.changes.items()
        if step in _REPAIRS and rows >= _WORTH_A_WORD * profile.rows_in
    ]
    found += [*_read_otherwise(profile), *_kept_all_the_same(profile), *_personal_data(profile)]
    sentences = [sentence for _, sentence in sorted(found, key=lambda item: (-item[0], item[1]))]
    return [*sentences, *_advice(profile)]


def verdict_of(profile: DataProfile, drift: Drift | None) -> Verdict:
    """The first line of the report."""
    headline = f"{profile.rows_used:,} of {counted(profile.rows_in, 'row')} can be trained on"
    if not profile.rows_used:
        return Verdict("stop", "Nothing can be trained on", f"{counted(profile.rows_in, 'row')} came in, none is left.")
    if drift and drift.level == "stop":
        return Verdict("stop", headline, "The recipe stops here: the data has drifted from the champion's.")
    fixes = len(to_fix(profile))
    warnings = sum(finding.level == "warn" for finding in drift.findings) if drift else 0
    notes = [f"{counted(fixes, 'thing')} to look at"] if fixes else []
    notes += [f"{counted(warnings, 'sign')} of drift from the champion's data"] if warnings else []
    if notes:
        return Verdict("look", headline, f"{' and '.join(notes).capitalize()}. Every row is accounted for.")
    return Verdict("good", headline, "Every row is accounted for, and there is nothing to fix.")


def _is_named(profile: DataProfile, code: str, rows: int) -> bool:
    if code in CHOSEN_AWAY:
        return False
    return not REASONS[code].quiet or code in _ALWAYS_NAMED or rows >= _WORTH_A_WORD * profile.rows_in


def _reason(profile: DataProfile, code: str, rows: int) -> str:
    reason = REASONS[code]
    examples = profile.examples.get(code, ())
    first = f" First: {examples[0].file}:{examples[0].line}." if examples else ""
    return f"{counted(rows, 'row')} ({percent(rows / profile.rows_in)}), `{code}`: {reason.means} {reason.do}{first}"


def _useless(source: SourceProfile) -> str:
    most = next(iter(source.dropped))
    return f"{source.name}: none of its {counted(source.rows_in, 'row')} is used, mostly for `{most}`. Mend the file, or take it out."


def _read_otherwise(profile: DataProfile) -> Iterator[tuple[int, str]]:
    """Files that were left out, and lines of which somebody should know how they were read."""
    for source in profile.sources:
        odd = dict(source.read.otherwise)
        if numbers := odd.pop("no_number", 0):
            yield numbers, f"{source.name}: {counted(numbers, 'value')} such as NaN or Infinity were read as null. Write numbers, or null."
        if odd:
            encodings = ", ".join(f"{name.removeprefix('decoded_')} {lines:,}" for name, lines in odd.items())
            lines = sum(odd.values())
            left = "not UTF-8; how they were read is a guess"
            yield lines, f"{source.name}: {counted(lines, 'line')} {left} ({encodings}). Save the file as UTF-8, or name its `encoding`."
        if unread := [file for file in source.read.unread if file.why != HIDDEN]:
            shown = "; ".join(f"{file.name} {file.why}" for file in unread[:_SHOWN_FILES])
            hidden = sum(file.why == HIDDEN for file in source.read.unread)
            files = counted(source.read.unread_files - hidden, "file")
            yield len(unread), f"{source.name}: {files} there not read: {shown}. Save as JSON Lines or CSV what belongs to the data."


def _kept_all_the_same(profile: DataProfile) -> Iterator[tuple[int, str]]:
    """What is trained on and perhaps should not be."""
    if rows := profile.leaks_kept:
        yield rows, f"{counted(rows, 'row')} overlap an evaluation suite and are trained on, so its score is too good. Remove them."
    if (rows := profile.duplicates.conflicting) >= max(1, _WORTH_A_WORD * profile.rows_in):
        yield rows, f"{counted(rows, 'row')} answer a question that another row answers differently. See which answer is right."


def _personal_data(profile: DataProfile) -> Iterator[tuple[int, str]]:
    if profile.privacy in ("count", "off") and profile.masked_rows >= max(1, _WORTH_A_WORD * profile.rows_in):
        kinds = ", ".join(list(profile.masked)[:3])
        left = f"hold personal data ({kinds}), which the model would learn and may repeat. Set `data.privacy.mode: mask`."
        yield profile.masked_rows, f"{counted(profile.masked_rows, 'row')} ({percent(profile.masked_rows / profile.rows_in)}) {left}"


def _advice(profile: DataProfile) -> list[str]:
    if not 0 < profile.rows_used < SMALL_DATA_ROWS or profile.fold:
        return []
    if profile.rows_used < _HARDLY_ANY_ROWS:
        return [f"Only {counted(profile.rows_used, 'row')}: too few to learn from, or to judge by. Gather more."]
    few = f"Only {counted(profile.rows_used, 'row')}: one validation split of so few says little."
    return [f"{few} Set `data.folds: 5` and run once for each `data.fold`, or gather more rows."]
