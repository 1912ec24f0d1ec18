"""Asks a server every question of a suite, side by side, and keeps what it says in the journal.

Answers come first, and only then the log-probabilities of the references and whatever is to run beside them: latency is that of
`concurrency` answers in flight and nothing else. A fault that may pass is tried again; any other ends the evaluation,
and the next run asks for the rest. Knows nothing of rules and scores. Next: `scoring.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeVar

from evaluation.client import Client, Endpoint, connect, patiently
from evaluation.config import EvaluationSection
from evaluation.errors import EndpointError, ScoringError
from evaluation.journal import Journal, Key
from evaluation.perplexity import reference_logprob
from evaluation.suite import Prompt, Suite
from training.errors import TunegateError
from training.progress import Progress, Report

T = TypeVar("T")


def questions_of(suite: Suite, section: EvaluationSection) -> list[tuple[Prompt, Key]]:
    """Every question in the scorecard's order: the answers to one prompt stand together."""
    return [(prompt, (prompt.id, repetition)) for prompt in suite.prompts for repetition in range(section.repetitions)]


def suite_faults(suite: Suite, section: EvaluationSection) -> list[str]:
    """Why the suite cannot be asked as the section wants; empty when it can."""
    if section.repetitions == 1 or suite.generation.temperature > 0:
        return []
    return [
        f"evaluation.repetitions is {section.repetitions}, but {suite.name} asks for greedy answers (temperature 0): "
        "the same answer several times would look like that much more evidence"
    ]


async def nothing() -> None:
    """Nothing beside the log-probabilities."""


async def ask_everything(
    endpoint: Endpoint,
    suite: Suite,
    section: EvaluationSection,
    journal: Journal,
    report: Report,
    beside: Callable[[], Coroutine[None, None, None]] = nothing,
) -> None:
    """Fill the journal: an answer to every question and, where the section wants perplexity, every reference's log-probability.

    `beside` runs when all answers are there, while log-probabilities are asked: nothing is timed then.

    Raises:
        EndpointError: something stayed unanswered; what was answered is kept.
        ScoringError: the perplexity of a reference cannot be measured.
        TunegateError: as `beside` says.
    """
    async with connect(endpoint, concurrency=section.concurrency, timeout_s=section.timeout_s) as client:
        await _ask(client, suite, section, journal, report)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(beside())
                if section.perplexity:
                    group.create_task(_weigh(client, suite, section, journal, report))
        except* TunegateError as failures:
            raise failures.exceptions[0] from None


async def _ask(client: Client, suite: Suite, section: EvaluationSection, journal: Journal, report: Report) -> None:
    questions = questions_of(suite, section)
    open_questions = [(prompt, key) for prompt, key in questions if key not in journal.answers]
    if not open_questions:
        return

    async def ask(question: tuple[Prompt, Key]) -> None:
        prompt, key = question
        await journal.add_answer(key, await client.chat(prompt.messages, suite.generation, seed=key[1]))
        report(Progress(len(journal.answers), len(questions), "answers", "answering"))

    # A cold server's first answer is slow and says nothing about it.
    await patiently(lambda: client.chat(open_questions[0][0].messages, suite.generation), section.attempts)
    await _each(open_questions, ask, lambda question: question[0].id, section)


async def _weigh(client: Client, suite: Suite, section: EvaluationSection, journal: Journal, report: Report) -> None:
    weighed = [prompt for prompt in suite.prompts if prompt.reference]
    open_prompts = [prompt for prompt in weighed if prompt.id not in journal.logprobs]
    if not open_prompts:
        return
    context = await patiently(client.context_length, section.attempts)

    async def weigh(prompt: Prompt) -> None:
        await journal.add_logprob(prompt.id, await reference_logprob(client, prompt, context))
        report(Progress(len(journal.logprobs), len(weighed), "references", "perplexity"))

    await _each(open_prompts, weigh, lambda prompt: prompt.id, section)


async def _each(items: Sequence[T], work: Callable[[T], Awaitable[None]], name: Callable[[T], str], section: EvaluationSection) -> None:
    """Run `work` on every item, at most `concurrency` at once; the first failure ends it, once the others have come to rest."""
    slots = asyncio.Semaphore(section.concurrency)

    async def guarded(item: T) -> None:
        async with slots:
            try:
                await patiently(lambda: work(item), section.attempts)
            except EndpointError as error:
                error.add_note(f"prompt {name(item)}")
                raise

    try:
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(guarded(item))
    except* (EndpointError, ScoringError) as failures:
        raise failures.exceptions[0] from None
