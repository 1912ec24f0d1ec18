"""Does an engine answer? Asked as a caller would ask: a completion, by the name of the model. Its health page alone proves nothing.

An engine that is busy may keep a question waiting for long; it is not silent as long as its own count of tokens moves.
Next: `slots.py` and `outside_engine.py`, which wait for its first answer, and for its last.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

import aiohttp
from pydantic import SecretStr

T = TypeVar("T")

_EVERY_S = 0.2
_TIMEOUT_S = 60.0
# One lost answer may be a pod that is replaced; three in a row are no engine.
_MISSES = 3
# A wait that ends by more than this too late says that this very process stood still, not the engine.
_SLICE_S, _LATE_S = 0.5, 0.3
_MOST_PAGE_BYTES = 1 << 20
# vLLM's: one moves with every step of the engine, the other with every token, whoever asked for it.
_WORK = (b"vllm:iteration_tokens_total_sum", b"vllm:generation_tokens_total")


@dataclass(frozen=True)
class Address:
    """Where an engine is, without `/v1`, what it calls the model, and the key it asks for."""

    base_url: str
    served_name: str
    key: SecretStr


async def answered(address: Address, *, every_s: float = _EVERY_S) -> None:
    """Return when it has answered."""
    async with _session(address) as session:
        while not await _answers(session, address):
            await asyncio.sleep(every_s)


@dataclass(frozen=True)
class Pace:
    """How often an engine is looked at while it serves, and how long it may take to answer and to show its page of metrics."""

    every_s: float
    answer_s: float
    page_s: float

    @classmethod
    def for_silence(cls, silent_s: float) -> "Pace":
        """Three lost answers take `silent_s` seconds at most."""
        part_s = silent_s / _MISSES / 4
        return cls(every_s=part_s, answer_s=2 * part_s, page_s=part_s)


async def went_silent(address: Address, pace: Pace) -> str:
    """Return when it has not answered three times in a row, nor worked meanwhile; what was seen, to follow the engine's name."""
    missed, work = 0, b""
    async with _session(address, timeout_s=None) as session:
        while missed < _MISSES:
            await asyncio.sleep(pace.every_s)
            answers = await awaited(_answers(session, address), pace.answer_s)
            if answers:
                missed, work = 0, b""
                continue
            before, work = work, (await awaited(_work(session, address), pace.page_s) or b"") if answers is None else b""
            # It has worked on something since the look before: our question waits behind others'.
            missed = 0 if before and work and before != work else missed + 1
    return f"did not answer {_MISSES} times in a row"


async def awaited(work: Awaitable[T], seconds: float) -> T | None:
    """Its outcome; None when there was none in so many seconds.

    Had this process itself stood still, an answer that came meanwhile lies unread when the wait ends: that time does not count, and
    the next slice reads it.
    """
    task, left_s = asyncio.ensure_future(work), seconds
    try:
        while not task.done() and left_s > 0:
            slice_s, began_s = min(_SLICE_S, left_s), monotonic()
            await asyncio.wait({task}, timeout=slice_s)
            if monotonic() - began_s <= slice_s + _LATE_S:
                left_s -= slice_s
        return task.result() if task.done() else None
    finally:
        task.cancel()


def _session(address: Address, timeout_s: float | None = _TIMEOUT_S) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {address.key.get_secret_value()}"}
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s), headers=headers, trust_env=False)


async def _answers(session: aiohttp.ClientSession, address: Address) -> bool:
    # A server of somebody else at this address does not know the model of this name.
    question = {"model": address.served_name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    try:
        async with session.post(f"{address.base_url}/v1/completions", json=question, allow_redirects=False) as answer:
            body = await answer.json() if answer.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    return isinstance(body, dict) and body.get("model") == address.served_name and bool(body.get("choices"))


async def _work(session: aiohttp.ClientSession, address: Address) -> bytes:
    """What an engine says of the work it has done, to be compared with what it says later; empty when it says nothing of it."""
    try:
        async with session.get(f"{address.base_url}/metrics", allow_redirects=False) as answer:
            page = await _page(answer) if answer.status == 200 else b""
    except (aiohttp.ClientError, TimeoutError):
        return b""
    return b"\n".join(line for line in page.splitlines() if line.startswith(_WORK))


async def _page(answer: aiohttp.ClientResponse) -> bytes:
    page = bytearray()
    async for chunk in answer.content.iter_any():
        page += chunk
        if len(page) > _MOST_PAGE_BYTES:
            return b""
    return bytes(page)
