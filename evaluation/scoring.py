"""Questions one server with one suite and writes the scorecard. Concurrent; a killed run goes on where it stopped.

Every answer is appended to `answers.jsonl` as it arrives, behind a first line that says which model, suite and settings it
belongs to; a file of other terms is put aside as `answers.stale.jsonl`. Answers come first and perplexities after them, so that
the latencies are those of answering alone. A prompt that stays unanswered after `attempts` ends the evaluation: without all
answers there is no scorecard, and without a scorecard nothing is promoted. Next: `gate.py`.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from evaluation.aggregates import measure
from evaluation.bleu import bleu_signature, bleu_stats
from evaluation.client import ChatAnswer, Endpoint, connect, patiently
from evaluation.config import EvaluationSection
from evaluation.errors import EndpointError, ScoringError
from evaluation.lm_eval_tasks import run_tasks
from evaluation.perplexity import reference_logprob
from evaluation.records import AnswerRecord, Scorecard, TaskScore
from evaluation.rouge import rouge_l
from evaluation.rules import judge_answer
from evaluation.suite import Prompt, Suite
from training.progress import Progress, Report
from training.records import digest_of

ANSWERS_NAME = "answers.jsonl"


def score_endpoint(
    endpoint: Endpoint, suite: Suite, section: EvaluationSection, *, model_digest: str, subject: str, out: Path, report: Report
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

    Raises:
        EndpointError: a prompt stayed unanswered; what was answered is kept.
        ScoringError: the perplexity of a reference cannot be measured.
    """
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    terms = _terms(suite, section, model_digest)
    answers = asyncio.run(_answer_all(endpoint, suite, section, terms, out / ANSWERS_NAME, report))
    tasks = run_tasks(endpoint, concurrency=section.concurrency) if section.forgetting else ()
    card = _scorecard(suite, section, answers, tasks, model_digest=model_digest, subject=subject, wall_s=time.perf_counter() - began)
    card.write(out)
    return card


def judge(suite: Suite, prompt: Prompt, chat: ChatAnswer) -> AnswerRecord:
    """Everything about an answer that needs no server."""
    return AnswerRecord(
        prompt_id=prompt.id,
        topic=prompt.topic,
        messages=prompt.messages,
        reference=prompt.reference,
        answer=chat.text,
        finish_reason=chat.finish_reason,
        latency_s=chat.latency_s,
        ttft_s=chat.ttft_s,
        completion_tokens=chat.completion_tokens,
        rules=judge_answer(suite.rules, prompt, chat.text),
        bleu_stats=bleu_stats(chat.text, prompt.reference, suite.language),
        rouge_l=rouge_l(chat.text, prompt.reference, suite.language),
    )


def _terms(suite: Suite, section: EvaluationSection, model_digest: str) -> str:
    return digest_of({"model": model_digest, "suite": suite.digest, "concurrency": section.concurrency})


def _scorecard(
    suite: Suite,
    section: EvaluationSection,
    answers: Sequence[AnswerRecord],
    tasks: Sequence[TaskScore],
    *,
    model_digest: str,
    subject: str,
    wall_s: float,
) -> Scorecard:
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
        bleu_signature=bleu_signature(suite.language),
        answers=tuple(answers),
        tasks=tuple(tasks),
        metrics=measure(answers, tasks),
    )


async def _answer_all(
    endpoint: Endpoint, suite: Suite, section: EvaluationSection, terms: str, path: Path, report: Report
) -> list[AnswerRecord]:
    """All answers in the suite's order, with their references' log-probabilities where the section asks for them."""
    chats, logprobs = _resume(path, terms)
    steps = len(suite.prompts) * (2 if section.perplexity else 1)
    with path.open("a", encoding="utf-8") as log:
        async with connect(endpoint, concurrency=section.concurrency, timeout_s=section.timeout_s) as client:

            async def ask(prompt: Prompt) -> None:
                chats[prompt.id] = await client.chat(prompt.messages, suite.generation)
                _append(log, {"prompt_id": prompt.id, "chat": vars(chats[prompt.id])})
                report(Progress(len(chats) + len(logprobs), steps, "prompts", "answering"))

            async def weigh(prompt: Prompt) -> None:
                logprobs[prompt.id] = await reference_logprob(client, prompt)
                _append(log, {"prompt_id": prompt.id, "logprob": logprobs[prompt.id]})
                report(Progress(len(chats) + len(logprobs), steps, "prompts", "perplexity"))

            open_prompts = [prompt for prompt in suite.prompts if prompt.id not in chats]
            if open_prompts:  # a cold server's first answer is slow and says nothing about it
                await patiently(lambda: client.chat(open_prompts[0].messages, suite.generation), section.attempts)
            await _each(open_prompts, ask, section)
            if section.perplexity:
                await _each([prompt for prompt in suite.prompts if prompt.id not in logprobs], weigh, section)
    return [_record(suite, prompt, chats[prompt.id], logprobs.get(prompt.id)) for prompt in suite.prompts]


async def _each(prompts: Sequence[Prompt], work: Callable[[Prompt], Awaitable[None]], section: EvaluationSection) -> None:
    """Run `work` on every prompt, at most `concurrency` at once; the first failure ends it, once the others have come to rest."""
    slots = asyncio.Semaphore(section.concurrency)

    async def guarded(prompt: Prompt) -> None:
        async with slots:
            try:
                await patiently(lambda: work(prompt), section.attempts)
            except EndpointError as error:
                error.add_note(f"prompt {prompt.id}")
                raise

    try:
        async with asyncio.TaskGroup() as group:
            for prompt in prompts:
                group.create_task(guarded(prompt))
    except* (EndpointError, ScoringError) as failures:
        raise failures.exceptions[0] from None


def _record(suite: Suite, prompt: Prompt, chat: ChatAnswer, logprob: tuple[float, int] | None) -> AnswerRecord:
    record = judge(suite, prompt, chat)
    if logprob is None:
        return record
    return record.model_copy(update={"reference_logprob": min(0.0, logprob[0]), "reference_tokens": logprob[1]})


def _append(log: TextIO, value: dict[str, Any]) -> None:
    """One line, handed to the system at once: a kill loses at most the line being written."""
    log.write(json.dumps(value, ensure_ascii=False) + "\n")
    log.flush()


def _resume(path: Path, terms: str) -> tuple[dict[str, ChatAnswer], dict[str, tuple[float, int]]]:
    """What an earlier, killed run of the same terms left; starts the file otherwise. A torn last line is dropped."""
    chats: dict[str, ChatAnswer] = {}
    logprobs: dict[str, tuple[float, int]] = {}
    lines = _whole_lines(path)
    if not lines or lines[0] != {"terms": terms}:
        if lines:
            path.replace(path.with_name("answers.stale.jsonl"))
        lines = [{"terms": terms}]
    for line in lines[1:]:
        if "chat" in line:
            chats[line["prompt_id"]] = ChatAnswer(**line["chat"])
        else:
            logprobs[line["prompt_id"]] = (line["logprob"][0], line["logprob"][1])
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return chats, logprobs


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            value = json.loads(line)
        except ValueError:
            break
        if not isinstance(value, dict):
            break
        found.append(value)
    return found
