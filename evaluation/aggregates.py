"""Every number a policy may name: its unit, which way is better, and how it is made from a scorecard's answers.

A new metric is one entry of `METRICS`: what each answer adds to it (`each`), and how the number is made of that (`Totals` of sums, or
`Quantile`). So the number in the scorecard, its resamples and its slices come from the same code. Next: `pairing.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.config import MetricName
from evaluation.metrics.bleu import bleu_of
from evaluation.metrics.chrf import chrf_of
from evaluation.metrics.labels import label_row, macro_f1
from evaluation.records import AnswerRecord, Scorecard, TaskScore
from evaluation.resampling import Quantile, Sample, Statistic, Totals, mean, total
from evaluation.rules import Severity
from evaluation.statistics import Rows

Row = tuple[float, ...]


@dataclass(frozen=True)
class Metric:
    """How one number comes about.

    Attributes:
        unit: for people.
        higher_is_better: which way a regression goes.
        kind: `share` and `count` are the mean and the sum of rows that are 0 or 1, so exact paired tests apply; `score` is any other.
        sample: what it is made of; an empty one where it applies to no prompt, None when it was not measured.
        value: the number.
    """

    unit: str
    higher_is_better: bool
    kind: Literal["share", "count", "score"]
    sample: Callable[[Sequence[AnswerRecord], Sequence[TaskScore]], Sample | None]
    value: Statistic


def measure(answers: Sequence[AnswerRecord], tasks: Sequence[TaskScore]) -> dict[MetricName, float | None]:
    """Every metric of a set of answers; None where it was not measured or applies to no prompt."""
    measured: dict[MetricName, float | None] = {}
    for name, metric in METRICS.items():
        sample = metric.sample(answers, tasks)
        measured[name] = metric.value(sample.rows) if sample is not None and sample.prompts else None
    return measured


def sample_of(name: MetricName, card: Scorecard) -> Sample | None:
    """What a metric is made of on a scorecard; None when it was not measured."""
    return METRICS[name].sample(card.answers, card.tasks)


def each(
    row: Callable[[AnswerRecord], float | Row | None], *, where: Callable[[AnswerRecord], bool] = lambda answer: True
) -> Callable[[Sequence[AnswerRecord], Sequence[TaskScore]], Sample | None]:
    """A metric made of answers: `row` is what an answer adds, None where it was not measured; `where` says to which ones it applies."""

    def sample(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Sample | None:
        apply = [answer for answer in answers if where(answer)]
        rows = [row(answer) for answer in apply]
        if any(one is None for one in rows):
            return None
        return _sample([answer.prompt_id for answer in apply], [one if isinstance(one, tuple) else (float(one or 0.0),) for one in rows])

    return sample


def each_item(_: Sequence[AnswerRecord], tasks: Sequence[TaskScore]) -> Sample | None:
    """A metric made of the items of the lm-eval tasks: 1 for a right answer."""
    items = [(f"{task.task}#{number:06d}", (float(right),)) for task in tasks for number, right in enumerate(task.correct)]
    return _sample([name for name, _ in items], [row for _, row in items]) if items else None


def _sample(names: Sequence[str], rows: Sequence[Row]) -> Sample:
    """In the order of the names, whatever the order of the answers, so that the order decides nothing."""
    order = sorted(range(len(names)), key=lambda at: (names[at], rows[at]))
    prompts = sorted(set(names))
    place = {name: at for at, name in enumerate(prompts)}
    table = np.array([rows[at] for at in order], dtype=np.float64).reshape(len(rows), -1 if rows else 1)
    return Sample(tuple(prompts), table, np.array([place[names[at]] for at in order], dtype=np.intp))


def _breaks(severity: Severity) -> Callable[[Sequence[AnswerRecord], Sequence[TaskScore]], Sample | None]:
    return each(lambda answer: answer.breaks(severity), where=lambda answer: any(rule.severity == severity for rule in answer.rules))


def _has_reference(answer: AnswerRecord) -> bool:
    return bool(answer.reference)


def _has_label(answer: AnswerRecord) -> bool:
    return answer.label is not None


def _is_graded_well(answer: AnswerRecord) -> bool | None:
    """A judge never excuses what a rule found; one answer without a grade, and nothing is measured."""
    if answer.grade is None or answer.grade.passed is None:
        return None
    return answer.grade.passed and not answer.broken


def _labels(answers: Sequence[AnswerRecord], tasks: Sequence[TaskScore]) -> Sample | None:
    """Counts of each prompt that has a label; the columns are alike for every model that answers the same prompts."""
    labels = sorted({str(answer.label) for answer in answers if _has_label(answer)})
    rows = each(lambda answer: tuple(label_row(str(answer.label), answer.predicted_label, labels)), where=_has_label)
    return rows(answers, tasks)


def _speed(answer: AnswerRecord) -> Row | None:
    return None if answer.completion_tokens is None else (float(answer.completion_tokens), answer.latency_s)


def _logprob(answer: AnswerRecord) -> Row | None:
    if answer.reference_logprob is None or not answer.reference_tokens:
        return None
    return answer.reference_logprob, float(answer.reference_tokens)


def _ttft(answer: AnswerRecord) -> float:
    """An empty answer has no first token: its whole latency stands in, so that saying nothing never looks fast."""
    return answer.latency_s if answer.ttft_s is None else answer.ttft_s


def _bleu(sums: Rows, _: float) -> float:
    return bleu_of(tuple(int(value) for value in sums))


def _chrf(sums: Rows, _: float) -> float:
    return chrf_of(tuple(int(value) for value in sums))


def _tokens_per_s(sums: Rows, _: float) -> float:
    return float(sums[0] / sums[1]) if sums[1] > 0 else 0.0


def _perplexity(sums: Rows, _: float) -> float:
    return math.exp(min(-float(sums[0]) / float(sums[1]), 700.0))  # exp overflows above 709


METRICS: dict[MetricName, Metric] = {
    "rule_pass_rate": Metric(
        "share of prompts with a rule",
        True,
        "share",
        each(lambda answer: not answer.broken, where=lambda answer: bool(answer.rules)),
        Totals(mean),
    ),
    "critical_failures": Metric("answers", False, "count", _breaks("critical"), Totals(total)),
    "major_failures": Metric("answers", False, "count", _breaks("major"), Totals(total)),
    "minor_failures": Metric("answers", False, "count", _breaks("minor"), Totals(total)),
    "empty_answers": Metric("answers", False, "count", each(lambda answer: not answer.answer.strip()), Totals(total)),
    "truncated_answers": Metric("answers", False, "count", each(lambda answer: answer.truncated), Totals(total)),
    "endless_answers": Metric("answers", False, "count", each(lambda answer: answer.endless), Totals(total)),
    "judge_pass_rate": Metric("share of prompts, rules kept too", True, "share", each(_is_graded_well), Totals(mean)),
    "bleu_4": Metric("0-100", True, "score", each(lambda answer: answer.bleu_stats, where=_has_reference), Totals(_bleu)),
    "chrf": Metric("chrF2, 0-100", True, "score", each(lambda answer: answer.chrf_stats, where=_has_reference), Totals(_chrf)),
    "rouge_1": Metric("F1, 0-1", True, "score", each(lambda answer: answer.rouge_1, where=_has_reference), Totals(mean)),
    "rouge_2": Metric("F1, 0-1", True, "score", each(lambda answer: answer.rouge_2, where=_has_reference), Totals(mean)),
    "rouge_l": Metric("F1, 0-1", True, "score", each(lambda answer: answer.rouge_l, where=_has_reference), Totals(mean)),
    "exact_match": Metric("share of answers", True, "share", each(lambda answer: answer.exact_match, where=_has_reference), Totals(mean)),
    "token_f1": Metric("F1, 0-1", True, "score", each(lambda answer: answer.token_f1, where=_has_reference), Totals(mean)),
    "accuracy": Metric(
        "share of prompts with a label",
        True,
        "share",
        each(lambda answer: answer.label == answer.predicted_label, where=_has_label),
        Totals(mean),
    ),
    "macro_f1": Metric("F1, 0-1, mean over labels", True, "score", _labels, Totals(lambda sums, _: macro_f1(sums))),
    "perplexity": Metric("per reference token", False, "score", each(_logprob, where=_has_reference), Totals(_perplexity)),
    "distinct_1": Metric("share of an answer's words", True, "score", each(lambda answer: answer.distinct_1), Totals(mean)),
    "distinct_2": Metric("share of an answer's word pairs", True, "score", each(lambda answer: answer.distinct_2), Totals(mean)),
    "repetition": Metric("share of an answer's 4-grams", False, "score", each(lambda answer: answer.repeated_share), Totals(mean)),
    "answer_units": Metric("words or Chinese characters per answer", False, "score", each(lambda answer: answer.units), Totals(mean)),
    "latency_p50_s": Metric("s", False, "score", each(lambda answer: answer.latency_s), Quantile(0.5)),
    "latency_p95_s": Metric("s", False, "score", each(lambda answer: answer.latency_s), Quantile(0.95)),
    "ttft_p50_s": Metric("s", False, "score", each(_ttft), Quantile(0.5)),
    "ttft_p95_s": Metric("s", False, "score", each(_ttft), Quantile(0.95)),
    "tokens_per_s": Metric("per answer in flight", True, "score", each(_speed), Totals(_tokens_per_s)),
    "forgetting_accuracy": Metric("share of items", True, "share", each_item, Totals(mean)),
}
