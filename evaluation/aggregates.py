"""Every number a policy may name: its unit, which way is better, and how it is made from a scorecard's answers.

Each metric is two functions: `rows` takes what it needs of each prompt, `value` makes the corpus number of any rows. So the
number in the scorecard and the numbers of the bootstrap's resamples come from the same code. Next: `gate.py`.
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
from evaluation.rules import Severity
from evaluation.statistics import Rows


@dataclass(frozen=True)
class Metric:
    """How one number comes about.

    Attributes:
        unit: for people.
        higher_is_better: which way a regression goes.
        kind: `share` and `count` are the mean and the sum of rows that are 0 or 1, so exact paired tests apply; `score` is any other.
        rows: (prompts, k); prompts the metric does not apply to are left out; None when it was not measured.
        value: the corpus number of rows.
    """

    unit: str
    higher_is_better: bool
    kind: Literal["share", "count", "score"]
    rows: Callable[[Sequence[AnswerRecord], Sequence[TaskScore]], Rows | None]
    value: Callable[[Rows], float]


def measure(answers: Sequence[AnswerRecord], tasks: Sequence[TaskScore]) -> dict[MetricName, float | None]:
    """Every metric of a set of answers; None where it was not measured or applies to no prompt."""
    measured: dict[MetricName, float | None] = {}
    for name, metric in METRICS.items():
        rows = metric.rows(answers, tasks)
        measured[name] = None if rows is None or len(rows) == 0 else metric.value(rows)
    return measured


def rows_of(name: MetricName, card: Scorecard) -> Rows | None:
    """What a metric needs of each prompt of a scorecard; None when it was not measured."""
    rows = METRICS[name].rows(card.answers, card.tasks)
    return None if rows is None or len(rows) == 0 else rows


def _column(values: Sequence[float]) -> Rows:
    return np.array(values, dtype=np.float64).reshape(len(values), 1)


def _keeps_rules(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
    return _column([not answer.broken for answer in answers if answer.rules])


def _breaks(severity: Severity) -> Callable[[Sequence[AnswerRecord], Sequence[TaskScore]], Rows]:
    def rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
        return _column([answer.breaks(severity) for answer in answers if any(rule.severity == severity for rule in answer.rules)])

    return rows


def _is_empty(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
    return _column([not answer.answer.strip() for answer in answers])


def _referenced(number: Callable[[AnswerRecord], float]) -> Callable[[Sequence[AnswerRecord], Sequence[TaskScore]], Rows]:
    """One number per answer to a prompt that has a reference."""

    def rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
        return _column([number(answer) for answer in answers if answer.reference])

    return rows


def _each(number: Callable[[AnswerRecord], float]) -> Callable[[Sequence[AnswerRecord], Sequence[TaskScore]], Rows]:
    """One number per answer."""

    def rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
        return _column([number(answer) for answer in answers])

    return rows


def _is_graded_well(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows | None:
    """A judge never excuses what a rule found; one answer without a grade, and nothing is measured."""
    if any(answer.grade is None or answer.grade.passed is None for answer in answers):
        return None
    return _column([bool(answer.grade and answer.grade.passed) and not answer.broken for answer in answers])


def _bleu_rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
    return np.array([answer.bleu_stats for answer in answers if answer.reference], dtype=np.float64)


def _chrf_rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
    return np.array([answer.chrf_stats for answer in answers if answer.reference], dtype=np.float64)


def _label_rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
    """Counts of each prompt that has a label; the columns are alike for every model that answers the same prompts."""
    truths = [(str(answer.label), answer.predicted_label) for answer in answers if answer.label is not None]
    labels = sorted({truth for truth, _ in truths})
    return np.array([label_row(truth, given, labels) for truth, given in truths], dtype=np.float64).reshape(len(truths), 3 * len(labels))


def _right_labels(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
    return _column([answer.label == answer.predicted_label for answer in answers if answer.label is not None])


def _speed_rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows | None:
    """(tokens, seconds) of each answer."""
    if any(answer.completion_tokens is None for answer in answers):
        return None
    return np.array([(answer.completion_tokens, answer.latency_s) for answer in answers], dtype=np.float64).reshape(len(answers), 2)


def _logprob_rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows | None:
    pairs = [(answer.reference_logprob, answer.reference_tokens) for answer in answers if answer.reference]
    if not pairs or any(logprob is None or not tokens for logprob, tokens in pairs):
        return None
    return np.array(pairs, dtype=np.float64)


def _latency_rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows:
    return _column([answer.latency_s for answer in answers])


def _ttft_rows(answers: Sequence[AnswerRecord], _: Sequence[TaskScore]) -> Rows | None:
    """An empty answer has no first token: its whole latency stands in, so that saying nothing never looks fast."""
    return _column([answer.latency_s if answer.ttft_s is None else answer.ttft_s for answer in answers])


def _task_rows(_: Sequence[AnswerRecord], tasks: Sequence[TaskScore]) -> Rows | None:
    return _column([float(right) for task in tasks for right in task.correct])


def _mean(rows: Rows) -> float:
    return float(rows.mean())


def _sum(rows: Rows) -> float:
    return float(rows.sum())


def _bleu(rows: Rows) -> float:
    return bleu_of(tuple(int(value) for value in rows.sum(axis=0)))


def _chrf(rows: Rows) -> float:
    return chrf_of(tuple(int(value) for value in rows.sum(axis=0)))


def _macro_f1(rows: Rows) -> float:
    return macro_f1(rows.sum(axis=0))


def _speed(rows: Rows) -> float:
    tokens, seconds = rows.sum(axis=0)
    return float(tokens / seconds) if seconds > 0 else 0.0


def _perplexity(rows: Rows) -> float:
    logprob, tokens = rows.sum(axis=0)
    return math.exp(min(-logprob / tokens, 700.0))  # exp overflows above 709


def _quantile(share: float) -> Callable[[Rows], float]:
    def value(rows: Rows) -> float:
        return float(np.quantile(rows, share))

    return value


METRICS: dict[MetricName, Metric] = {
    "rule_pass_rate": Metric("share of prompts with a rule", True, "share", _keeps_rules, _mean),
    "critical_failures": Metric("answers", False, "count", _breaks("critical"), _sum),
    "major_failures": Metric("answers", False, "count", _breaks("major"), _sum),
    "minor_failures": Metric("answers", False, "count", _breaks("minor"), _sum),
    "empty_answers": Metric("answers", False, "count", _is_empty, _sum),
    "truncated_answers": Metric("answers", False, "count", _each(lambda answer: answer.truncated), _sum),
    "endless_answers": Metric("answers", False, "count", _each(lambda answer: answer.endless), _sum),
    "judge_pass_rate": Metric("share of prompts, rules kept too", True, "share", _is_graded_well, _mean),
    "bleu_4": Metric("0-100", True, "score", _bleu_rows, _bleu),
    "chrf": Metric("chrF2, 0-100", True, "score", _chrf_rows, _chrf),
    "rouge_1": Metric("F1, 0-1", True, "score", _referenced(lambda answer: answer.rouge_1), _mean),
    "rouge_2": Metric("F1, 0-1", True, "score", _referenced(lambda answer: answer.rouge_2), _mean),
    "rouge_l": Metric("F1, 0-1", True, "score", _referenced(lambda answer: answer.rouge_l), _mean),
    "exact_match": Metric("share of answers", True, "share", _referenced(lambda answer: answer.exact_match), _mean),
    "token_f1": Metric("F1, 0-1", True, "score", _referenced(lambda answer: answer.token_f1), _mean),
    "accuracy": Metric("share of prompts with a label", True, "share", _right_labels, _mean),
    "macro_f1": Metric("F1, 0-1, mean over labels", True, "score", _label_rows, _macro_f1),
    "perplexity": Metric("per reference token", False, "score", _logprob_rows, _perplexity),
    "distinct_1": Metric("share of an answer's words", True, "score", _each(lambda answer: answer.distinct_1), _mean),
    "distinct_2": Metric("share of an answer's word pairs", True, "score", _each(lambda answer: answer.distinct_2), _mean),
    "repetition": Metric("share of an answer's 4-grams", False, "score", _each(lambda answer: answer.repeated_share), _mean),
    "answer_units": Metric("words or Chinese characters per answer", False, "score", _each(lambda answer: answer.units), _mean),
    "latency_p50_s": Metric("s", False, "score", _latency_rows, _quantile(0.5)),
    "latency_p95_s": Metric("s", False, "score", _latency_rows, _quantile(0.95)),
    "ttft_p50_s": Metric("s", False, "score", _ttft_rows, _quantile(0.5)),
    "ttft_p95_s": Metric("s", False, "score", _ttft_rows, _quantile(0.95)),
    "tokens_per_s": Metric("per answer in flight", True, "score", _speed_rows, _speed),
    "forgetting_accuracy": Metric("share of items", True, "share", _task_rows, _mean),
}
