"""Has an engine answered? Asked as a caller would ask: a completion, by the name of the model. Its health page alone proves nothing.

Next: `slots.py` and `outside_engine.py`, which wait for it.
"""

import asyncio
from dataclasses import dataclass

import aiohttp
from pydantic import SecretStr

_EVERY_S = 0.2
_TIMEOUT_S = 60.0


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


async def went_silent(address: Address, *, every_s: float, misses: int) -> None:
    """Return when it has not answered so many times in a row."""
    missed = 0
    async with _session(address) as session:
        while missed < misses:
            await asyncio.sleep(every_s)
            missed = 0 if await _answers(session, address) else missed + 1


def _session(address: Address) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {address.key.get_secret_value()}"}
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), headers=headers, trust_env=False)


async def _answers(session: aiohttp.ClientSession, address: Address) -> bool:
    # A server of somebody else at this address does not know the model of this name.
    question = {"model": address.served_name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    try:
        async with session.post(f"{address.base_url}/v1/completions", json=question, allow_redirects=False) as answer:
            body = await answer.json() if answer.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    return isinstance(body, dict) and body.get("model") == address.served_name and bool(body.get("choices"))
