"""A light, steady load on the gateway while something is changed, to prove that nobody notices.

Open loop: a request is sent at its time whether or not earlier ones have been answered, so a stall cannot hide itself.
"""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from pydantic import SecretStr

_TIMEOUT_S = 60.0
_DONE = b"data: [DONE]"


@dataclass
class LoadResult:
    """What the callers saw. `answered` counts by release; `failures` keeps the first few in words."""

    sent: int = 0
    failed: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def fail(self, why: str) -> None:
        """Count one failed request."""
        self.failed += 1
        if len(self.failures) < 5:
            self.failures.append(why)

    def settle(self) -> None:
        """Count what nobody heard of again as failed: a load that checks nothing must not look like one that went well."""
        if self.sent == 0:
            self.fail("no request was sent")
        for _ in range(self.sent - self.failed - self.answered.total()):
            self.fail("a request was never accounted for")


@contextmanager
def light_load(base_url: str, key: SecretStr, model: str, *, every_s: float = 0.25) -> Iterator[LoadResult]:
    """Send a short chat every `every_s` seconds, every other one streamed, while the block runs; the result is whole at its end."""
    result, stop = LoadResult(), threading.Event()
    thread = threading.Thread(
        target=lambda: asyncio.run(_send(base_url, key, model, every_s, result, stop)), name="light load", daemon=True
    )
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join(_TIMEOUT_S + 5)
        result.settle()


async def _send(base_url: str, key: SecretStr, model: str, every_s: float, result: LoadResult, stop: threading.Event) -> None:
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    async with (
        aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
        asyncio.TaskGroup() as group,
    ):
        while not stop.is_set():
            result.sent += 1
            group.create_task(_ask(session, base_url, model, result.sent, result))
            await asyncio.sleep(every_s)


async def _ask(session: aiohttp.ClientSession, base_url: str, model: str, number: int, result: LoadResult) -> None:
    streamed = number % 2 == 0
    body = {"model": model, "messages": [{"role": "user", "content": f"Hello number {number}"}], "max_tokens": 8, "stream": streamed}
    try:
        async with session.post(f"{base_url}/v1/chat/completions", json=body) as answer:
            raw = await answer.read()
            if answer.status != 200:
                result.fail(f"request {number}: HTTP {answer.status}: {raw[:200].decode(errors='replace')}")
            elif not _whole(raw, streamed):
                result.fail(f"request {number}: cut short")
            else:
                result.answered[answer.headers.get("x-tunegate-release", "?")] += 1
    except (aiohttp.ClientError, TimeoutError) as error:
        result.fail(f"request {number}: {type(error).__name__}: {error}")


def _whole(raw: bytes, streamed: bool) -> bool:
    if streamed:
        return _DONE in raw and b'"error"' not in raw
    try:
        return bool(json.loads(raw)["choices"])
    except (ValueError, KeyError, TypeError):
        return False
