"""Measures how fast two servers answer, side by side: the same prompts, a handful at once, the servers taking turns.

A time taken yesterday, or while a trainer ran beside it, says more about the machine than about the model. Here whatever slows the
machine for longer than a turn slows both, and who goes first changes with every turn. Neither finds a prompt in its cache. Answers and
scores may be as old as they like; only speed is measured anew. Next: `gate.py`, which compares no other speed.
"""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from evaluation.client import ChatAnswer, Client, Endpoint, connect, patiently
from evaluation.config import EvaluationSection
from evaluation.errors import EndpointError
from evaluation.records import SideBySide, Timing
from evaluation.suite import Generation, Prompt, Suite
from training.progress import Progress, Report


def measure_side_by_side(
    candidate: Endpoint,
    champion: Endpoint,
    suite: Suite,
    section: EvaluationSection,
    *,
    models: tuple[str, str],
    out: Path,
    report: Report,
) -> SideBySide:
    """Time both servers and write the record.

    Args:
        candidate: the server that may take the traffic.
        champion: the server that has it.
        suite: where the prompts and the generation settings are from.
        section: how many prompts, how many at once, how long an answer, timeout and attempts.
        models: digests of the models that candidate and champion serve.
        out: folder of the record.
        report: hears of every turn.

    Raises:
        EndpointError: a prompt stayed unanswered; nothing is written.
    """
    prompts = spread(suite.prompts, section.side_by_side.prompts)
    tokens = min(suite.generation.max_tokens, section.side_by_side.max_tokens)
    generation = suite.generation.model_copy(update={"max_tokens": tokens})
    ours, theirs = asyncio.run(_measure((candidate, champion), prompts, generation, section, report))
    record = SideBySide(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        candidate_model=models[0],
        champion_model=models[1],
        suite_digest=suite.digest,
        generation=generation,
        in_flight=section.side_by_side.in_flight,
        candidate=ours,
        champion=theirs,
    )
    record.write(out)
    return record


def spread(prompts: Sequence[Prompt], count: int) -> tuple[Prompt, ...]:
    """`count` of the prompts, evenly spaced, so that every topic of a sorted suite has its share; all where there are fewer."""
    count = min(count, len(prompts))
    return tuple(prompts[number * len(prompts) // count] for number in range(count))


def turns(waves: int) -> Iterator[tuple[int, int]]:
    """(wave, server) in the order of asking; server 0 goes first in every other wave."""
    for wave in range(waves):
        for server in (0, 1) if wave % 2 == 0 else (1, 0):
            yield wave, server


async def _measure(
    endpoints: tuple[Endpoint, Endpoint], prompts: Sequence[Prompt], generation: Generation, section: EvaluationSection, report: Report
) -> tuple[tuple[Timing, ...], tuple[Timing, ...]]:
    size = section.side_by_side.in_flight
    waves = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    found: tuple[list[Timing], list[Timing]] = ([], [])
    salt = secrets.token_hex(8)
    async with (
        connect(endpoints[0], concurrency=size, timeout_s=section.timeout_s) as ours,
        connect(endpoints[1], concurrency=size, timeout_s=section.timeout_s) as theirs,
    ):
        for client in (ours, theirs):  # a server's first answer after a pause is slow and says nothing about it
            await _ask(client, prompts[0], generation, section.attempts, secrets.token_hex(8))
        for turn, (wave, server) in enumerate(turns(len(waves))):
            report(Progress(turn, 2 * len(waves), "turns", "answering by turns"))
            found[server].extend(await _together((ours, theirs)[server], waves[wave], generation, section.attempts, salt))
    return tuple(found[0]), tuple(found[1])


async def _together(client: Client, wave: Sequence[Prompt], generation: Generation, attempts: int, salt: str) -> list[Timing]:
    answers = await asyncio.gather(*(_ask(client, prompt, generation, attempts, salt) for prompt in wave))
    return [
        Timing(prompt_id=prompt.id, latency_s=answer.latency_s, ttft_s=answer.ttft_s, completion_tokens=answer.completion_tokens)
        for prompt, answer in zip(wave, answers, strict=True)
    ]


async def _ask(client: Client, prompt: Prompt, generation: Generation, attempts: int, salt: str) -> ChatAnswer:
    try:
        return await patiently(lambda: client.chat(prompt.messages, generation, salt=salt), attempts)
    except EndpointError as error:
        error.add_note(f"prompt {prompt.id}, side by side")
        raise
