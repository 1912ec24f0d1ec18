"""Questions one server with one suite and writes the scorecard. Concurrent; a killed run goes on where it stopped.

Without an answer to every question there is no scorecard, and without a scorecard nothing is promoted. Everything that needs no
server (rules, text scores) is made at the end from the journal's answers. Next: `questioning.py`, `journal.py`; then `gate.py`.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from evaluation.aggregates import measure
from evaluation.client import ChatAnswer, Endpoint
from evaluation.config import EvaluationSection, ForgettingSection
from evaluation.errors import EndpointError, ScoringError
from evaluation.journal import ANSWERS_NAME, Journal, open_journal
from evaluation.judge_model import grade_answers
from evaluation.lm_eval_run import run_tasks
from evaluation.lm_eval_tasks import forgetting_terms
from evaluation.metrics.bleu import bleu_signature
from evaluation.metrics.chrf import chrf_signature
from evaluation.metrics.labels import parse_label
from evaluation.metrics.text_scores import score_text
from evaluation.questioning import ask_everything, questions_of, suite_faults
from evaluation.records import AnswerRecord, Scorecard, TaskScore
from evaluation.rules import judge_answer
from evaluation.suite import Prompt, Suite
from training.progress import Progress, Report
from training.records import digest_of

RunTasks = Callable[[Endpoint, ForgettingSection, int], tuple[TaskScore, ...]]


def score_endpoint(
    endpoint: Endpoint,
    suite: Suite,
    section: EvaluationSection,
    *,
    model_digest: str,
    subject: str,
    out: Path,
    report: Report,
    tasks: RunTasks = run_tasks,
) -> Scorecard:
    """Measure one model on one suite over its API; writes `answers.jsonl` while it runs and `record.json` last.

    Args:
        endpoint: the server that will take the traffic.
        suite: the prompts, references and rules.
        section: concurrency, timeout, attempts, and what to measure.
        model_digest: digest of the record of the model that the endpoint serves.
        subject: what people call it, e.g. a release id.
        out: folder of this scorecard; answers that are there already are not asked for again.
        report: hears of every answer.
        tasks: runs the forgetting tasks, at that concurrency; here by default, or elsewhere (`lm_eval_process.py`).

    Raises:
        EndpointError: a question stayed unanswered; what was answered is kept.
        ScoringError: the suite cannot be measured as the section asks.
    """
    began = time.perf_counter()
    if faults := suite_faults(suite, section):
        raise ScoringError("; ".join(faults), do="mend the suite or the recipe")
    out.mkdir(parents=True, exist_ok=True)
    with open_journal(out / ANSWERS_NAME, _terms(suite, section, model_digest), batch=section.concurrency) as journal:
        try:
            asyncio.run(
                ask_everything(
                    endpoint, suite, section, journal, report, lambda: _run_open_tasks(endpoint, section, journal, report, tasks)
                )
            )
        except EndpointError as error:
            error.add_note(f"{len(journal.answers)} answers are kept in {out / ANSWERS_NAME}; the next run asks for the rest")
            raise
        answers = grade_answers(
            [_record(suite, prompt, key[1], journal) for prompt, key in questions_of(suite, section)], section.judge, out
        )
        card = _scorecard(suite, section, answers, journal, model_digest=model_digest, subject=subject, wall_s=time.perf_counter() - began)
    card.write(out)
    return card


def judge(suite: Suite, prompt: Prompt, chat: ChatAnswer, *, repetition: int = 0) -> AnswerRecord:
    """Everything about an answer that needs no server."""
    return AnswerRecord(
        prompt_id=prompt.id,
        repetition=repetition,
        topic=prompt.topic,
        tags=prompt.tags,
        messages=prompt.messages,
        reference=prompt.reference,
        answer=chat.text,
        finish_reason=chat.finish_reason,
        latency_s=chat.latency_s,
        ttft_s=chat.ttft_s,
        completion_tokens=chat.completion_tokens,
        rules=judge_answer(suite.rules, prompt, chat.text),
        label=prompt.label,
        predicted_label=parse_label(chat.text, suite.labels) if prompt.label is not None else None,
        **score_text(chat.text, prompt.reference, suite.language).model_dump(),
    )


def load_reference_tools(language: str) -> None:
    """Import what the text scores of a language stand on, which takes seconds, while there is nothing else to do."""
    score_text("warm", "warm", language)


async def _run_open_tasks(endpoint: Endpoint, section: EvaluationSection, journal: Journal, report: Report, run: RunTasks) -> None:
    """The forgetting tasks one by one, so that a kill loses at most one; in a thread, as lm-eval brings an event loop of its own."""
    if section.forgetting is None:
        return
    wanted = list(zip(section.forgetting.tasks, forgetting_terms(section.forgetting), strict=True))
    for number, (name, terms) in enumerate(wanted):
        report(Progress(number, len(wanted), "tasks", name))
        if name not in journal.tasks or journal.tasks[name].terms != terms:
            alone = section.forgetting.model_copy(update={"tasks": (name,)})
            for score in await asyncio.to_thread(run, endpoint, alone, section.concurrency):
                journal.add_task(score)


def _terms(suite: Suite, section: EvaluationSection, model_digest: str) -> str:
    return digest_of({"model": model_digest, "suite": suite.digest, "concurrency": section.concurrency})


def _scorecard(
    suite: Suite,
    section: EvaluationSection,
    answers: tuple[AnswerRecord, ...],
    journal: Journal,
    *,
    model_digest: str,
    subject: str,
    wall_s: float,
) -> Scorecard:
    tasks = tuple(journal.tasks[name] for name in (section.forgetting.tasks if section.forgetting else ()))
    return Scorecard(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=wall_s,
        subject=subject,
        model_digest=model_digest,
        suite_name=suite.name,
        suite_version=suite.version,
        suite_digest=suite.digest,
        language=suite.language,
        generation=suite.generation,
        concurrency=section.concurrency,
        repetitions=section.repetitions,
        bleu_signature=bleu_signature(suite.language),
        chrf_signature=chrf_signature(),
        task_terms=tuple(task.terms for task in tasks),
        answers=answers,
        tasks=tasks,
        metrics=measure(answers, tasks),
    )


def _record(suite: Suite, prompt: Prompt, repetition: int, journal: Journal) -> AnswerRecord:
    record = judge(suite, prompt, journal.answers[prompt.id, repetition], repetition=repetition)
    if prompt.id not in journal.logprobs:
        return record
    logprob, tokens = journal.logprobs[prompt.id]
    return record.model_copy(update={"reference_logprob": logprob, "reference_tokens": tokens})
