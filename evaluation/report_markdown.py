"""The verdict in short, as Markdown: for terminals, logs and Prefect's artifacts.

Text of models and suites is made visible, kept on one line, cut, and its mark-up escaped, so that an answer can neither open a table
cell nor a tag. Next: nothing; `report.py` has the whole page.
"""

from collections.abc import Iterable, Iterator, Sequence

from evaluation.records import Outcome
from evaluation.report_answers import CHANGES, AnswerRow, Side, answer_rows, count_changes, rule_rows
from evaluation.report_numbers import number_rows, slices
from evaluation.report_provenance import Evidence, chain
from evaluation.report_text import consequence, counted, ends, in_words, number, percent, worst_first
from training.data.report_markdown import escaped

_SHOWN_ANSWERS = 10
_SHOWN_TOPICS = 12
_SHOWN_DIGITS = 12
_LONGEST_ANSWER = 240


def markdown_report(evidence: Evidence) -> str:
    """Verdict, reasons, numbers, topics, broken rules, the first broken answers, certificates and digests."""
    candidate, champion, verdict = evidence.candidate, evidence.champion, evidence.verdict
    against = f"against {escaped(champion.subject)}" if champion else "no champion yet"
    answers = answer_rows(candidate, champion)
    sections = [
        f"# {verdict.outcome.value}: {escaped(candidate.subject)}, {against}\n\n{consequence(verdict)}",
        _table("Reasons", ("outcome", "condition", "in words"), _reasons(evidence)),
        "\n".join(f"> {escaped(note, 400)}" for note in verdict.notes),
        _table("Numbers", ("metric", "candidate", "champion", "difference", "interval", "unit"), _numbers(evidence)),
        _table("Rules kept, by topic", ("topic", "candidate", "champion"), _topics(evidence)),
        _table("Broken rules", ("rule", "severity", "prompts", "candidate", "champion"), _rules(evidence)),
        _answers(answers),
        _listed("Certificates", _certificates(evidence)),
        _listed("Provenance", _provenance(evidence)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _table(title: str, names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows)]
    return "\n".join([f"## {title}\n", *lines]) if len(lines) > 2 else ""


def _listed(title: str, sentences: Iterable[str]) -> str:
    lines = [f"- {sentence}" for sentence in sentences]
    return "\n".join([f"## {title}\n", *lines]) if lines else ""


def _reasons(evidence: Evidence) -> Iterator[tuple[str, ...]]:
    for condition in worst_first(evidence.verdict.conditions):
        outcome = condition.outcome.value if condition.outcome is Outcome.PASS else f"**{condition.outcome.value}**"
        yield outcome, f"`{condition.name}`", escaped(condition.sentence, 600)


def _numbers(evidence: Evidence) -> Iterator[tuple[str, ...]]:
    for row in number_rows(evidence.candidate, evidence.champion, evidence.verdict, evidence.policy):
        interval = ends(row.difference) if row.difference else ""
        yield f"`{row.name}`", number(row.ours), number(row.theirs), in_words(row.difference), interval, row.unit


def _topics(evidence: Evidence) -> Iterator[tuple[str, ...]]:
    found = slices(evidence.candidate, evidence.champion, evidence.policy.alpha)
    for each in found[:_SHOWN_TOPICS]:
        theirs = f"{each.theirs.kept} of {each.theirs.of}" if each.theirs else ""
        yield escaped(each.topic), f"{each.ours.kept} of {each.ours.of}", theirs
    if len(found) > _SHOWN_TOPICS:
        yield f"{len(found) - _SHOWN_TOPICS} more, with no worse a change", "", ""


def _rules(evidence: Evidence) -> Iterator[tuple[str, ...]]:
    for row in rule_rows(evidence.candidate, evidence.champion):
        yield f"`{row.rule_id}`", row.severity, str(row.judged), str(row.ours), "" if row.theirs is None else str(row.theirs)


def _answers(answers: Sequence[AnswerRow]) -> str:
    """How the answers changed, and the first that break a rule they did not break before."""
    counts = ", ".join(f"{CHANGES[change]} {rows}" for change, rows in count_changes(answers).items())
    broken = [row for row in answers if row.change == "broken"]
    lines = [line for row in broken[:_SHOWN_ANSWERS] for line in _answer(row)]
    if len(broken) > _SHOWN_ANSWERS:
        lines.append(f"- {counted(len(broken) - _SHOWN_ANSWERS, 'more prompt')} like these on the page")
    return "\n".join(["## Answers\n", f"{counts}.\n", *lines])


def _answer(row: AnswerRow) -> Iterator[str]:
    yield f"- **{row.severity}** {escaped(row.prompt_id)}: {escaped(row.question)}"
    for side in row.sides:
        why = "; ".join(f"`{result.rule_id}` {escaped(result.reason)}" for result in side.broken)
        yield f"  - {escaped(side.subject)}: {_said(side)}{f' — {why}' if why else ''}"


def _said(side: Side) -> str:
    text = "".join(piece.text for piece in side.pieces)
    return escaped(text, _LONGEST_ANSWER) if text.strip() else "*(empty answer)*"


def _certificates(evidence: Evidence) -> Iterator[str]:
    if parity := evidence.parity:
        yield f"parity {'holds' if parity.holds else '**is broken**'}: {counted(parity.compared, 'conversation')} compared"
        if figures := parity.figures:
            greedy = f"{figures.greedy_agreed:,} of {figures.greedy_tokens:,} greedy tokens agree"
            yield f"log-probabilities: mean difference {number(figures.mean)} nats, {number(figures.mean_limit)} allowed; {greedy}"
        for fault in parity.faults:
            yield f"{fault.kind.value}, {escaped(fault.subject)}: {escaped(fault.what, 400)}"
    if merged := evidence.merged:
        yield f"merge: {merged.certificate.chosen} kept. {escaped(merged.certificate.reason, 400)}"
        for each in merged.certificate.measurements:
            measured = (
                f"KL {number(each.kl_nats)} nats, {percent(each.flip_rate)} of greedy tokens flipped, perplexity {number(each.perplexity)}"
            )
            yield f"{each.variant}: {measured}, {each.rule_passes} of {each.rule_prompts} validation prompts without a critical break"


def _provenance(evidence: Evidence) -> Iterator[str]:
    for step in chain(evidence):
        digests = ", ".join(f"{label} `{digest[:_SHOWN_DIGITS]}`" for label, digest in step.digests)
        yield f"{step.name} ({escaped(step.what)}): {digests}"
    if evidence.versions:
        yield ", ".join(f"{name} {escaped(version)}" for name, version in evidence.versions.items())
