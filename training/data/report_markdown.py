"""The data report in short, as Markdown: for terminals, logs and Prefect's artifacts.

Text of strangers is made visible, kept on one line, cut, and its mark-up escaped, so that a file name can neither open a table cell nor
a tag. Next: nothing; `report.py` has the whole page.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from training.data.profile import DataProfile
from training.data.reasons import REASONS
from training.data.report import DataReport
from training.data.report_charts import funnel, shares
from training.data.report_text import percent, visible

_LONGEST_CELL = 160
_SHOWN_LEAKS = 5
_MARKUP = re.compile(r"[\\*\[\]<>|&~$]")


def markdown_report(report: DataReport, *, fixes_last: bool = False) -> str:
    """Verdict, what to fix, the funnel, sources, and what else there is to say, in sections that are left out when empty.

    `fixes_last` is for a terminal, where the end is what one sees.
    """
    profile = report.profile
    fixes = _listed("What to fix first", (escaped(sentence, 400) for sentence in report.fixes), numbered=True)
    sections = [
        f"# {report.verdict.headline}\n\n{escaped(report.title)}. {report.verdict.detail}",
        "" if fixes_last else fixes,
        _table("Rows", ("step", "rows", "lost", "reasons"), _funnel_rows(profile)),
        _table("Sources", ("source", "read as", "in", "as it was", "changed", "dropped"), _source_rows(profile)),
        _listed("Lengths", _lengths(profile)),
        _table("Balance", ("source", "wanted", "rows in", "rows out", "repeats"), _balance_rows(profile)),
        _listed("Contents", _contents(profile)),
        _table("Left out", ("reason", "rows", "what it means", "first"), _reason_rows(profile)),
        _listed("Against the champion's data", _drift(report)),
        (fixes or "Nothing to fix.") if fixes_last else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def escaped(text: str, limit: int = _LONGEST_CELL) -> str:
    """Text of strangers on one line of Markdown, cut, with nothing in it that could be read as mark-up."""
    line = " ".join(visible(text[: 2 * limit]).split())
    cut = line if len(line) <= limit else line[: limit - 1] + "…"
    even = cut if cut.count("`") % 2 == 0 else cut.replace("`", "'")  # an odd one would make code of what follows
    return _MARKUP.sub(lambda found: "\\" + found.group(), even)


def _table(title: str, names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows)]
    return "\n".join([f"## {title}\n", *lines]) if len(lines) > 2 else ""


def _listed(title: str, sentences: Iterable[str], *, numbered: bool = False) -> str:
    lines = [f"{number}. {sentence}" if numbered else f"- {sentence}" for number, sentence in enumerate(sentences, start=1)]
    return "\n".join([f"## {title}\n", *lines]) if lines else ""


def _funnel_rows(profile: DataProfile) -> Iterator[tuple[str, ...]]:
    for step in funnel(profile):
        yield step.name, f"{step.rows:,}", f"{step.lost:,}" if step.lost else "", _counts(dict(step.lost_to))


def _source_rows(profile: DataProfile) -> Iterator[tuple[str, ...]]:
    for source in profile.sources:
        formats = ", ".join(f"{escaped(seen.name)} ({escaped(seen.why)})" for seen in source.formats)
        numbers = (f"{number:,}" for number in (source.rows_in, source.kept, source.changed))
        dropped = f"{sum(source.dropped.values()):,}" + (f": {_counts(source.dropped)}" if source.dropped else "")
        yield escaped(source.name), formats, *numbers, dropped


def _lengths(profile: DataProfile) -> Iterator[str]:
    for unit, lengths in (("tokens", profile.tokens), ("characters", profile.characters)):
        if lengths.rows:
            quantiles = ", ".join(
                f"{name} {lengths.quantile(share):,}" for name, share in (("median", 0.5), ("95 %", 0.95), ("longest", 1.0))
            )
            yield f"{unit} per row: {quantiles}"
    if profile.tokens.rows:
        yield f"{profile.tokens.total:,} tokens, {profile.loss_tokens:,} of them bear loss"
    if profile.tokens_refused.rows:
        yield f"{profile.tokens_refused.rows:,} rows were dropped for their length; the limit is {profile.max_length} tokens"


def _balance_rows(profile: DataProfile) -> Iterator[tuple[str, ...]]:
    for part in profile.balance:
        yield escaped(part.source), percent(part.share_wanted), f"{part.rows_in:,}", f"{part.rows_out:,}", f"{part.repeats} ×"


def _contents(profile: DataProfile) -> Iterator[str]:
    for name, counts in (("languages", profile.languages), ("topics", profile.topics)):
        if counts:
            yield f"{name}: " + ", ".join(f"{escaped(bar.name)} {percent(bar.share)}" for bar in shares(counts))
    if profile.masked:
        done = "masked" if profile.privacy == "mask" else "found, and left as it is,"
        yield f"personal data {done} in {profile.masked_rows:,} rows: {_counts(profile.masked)}"
    if profile.changes:
        yield f"rows changed by: {_counts(profile.changes)}"
    for name, times in (("terms written as the glossary has them", profile.terms), ("adverts taken out", profile.adverts)):
        if times:
            yield f"{name}: {', '.join(f'{escaped(bar.name)} {bar.rows:,} ×' for bar in shares(times))}"
    doubles = profile.duplicates
    if doubles.exact_clusters or doubles.near_clusters:
        groups = f"{doubles.exact_clusters:,} exact, {doubles.near_clusters:,} near"
        yield f"groups of duplicates: {groups}, the largest of {doubles.largest_cluster:,} rows"
    for leak in profile.leaks[:_SHOWN_LEAKS]:
        first = f"{escaped(leak.file)}:{leak.line}"
        yield f"overlap with suite {escaped(leak.suite)}, prompt {escaped(leak.prompt_id)}: {leak.kind}, {leak.rows:,} rows, first {first}"
    if len(profile.leaks) > _SHOWN_LEAKS:
        yield f"overlap with {len(profile.leaks) - _SHOWN_LEAKS:,} more prompts"


def _reason_rows(profile: DataProfile) -> Iterator[tuple[str, ...]]:
    for code, rows in profile.dropped.items():
        examples = profile.examples.get(code, ())
        yield f"`{code}`", f"{rows:,}", REASONS[code].means, f"{escaped(examples[0].file)}:{examples[0].line}" if examples else ""


def _drift(report: DataReport) -> Iterator[str]:
    findings = report.drift.findings if report.drift else ()
    for finding in findings:
        if finding.level != "ok":
            yield " ".join(filter(None, (f"**{finding.level}**", escaped(finding.what, 400), finding.why, finding.do)))
    if steady := [finding.measure for finding in findings if finding.level == "ok"]:
        yield f"no drift: {', '.join(steady)}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{escaped(name)} {rows:,}" for name, rows in counts.items())
