"""Callers that mean harm, all at once: `python -m tests.fakes_gateway_abuser PORT KEY`, until it is ended. Imports nothing of tunegate.

Says `ready` when each of them has been answered at least once, and the slow ones are all connected.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Iterator

BIG_BYTES, BODY_BYTES, SLOW_CALLERS = 50_000_000, 1_000_000, 200
PAUSE_S = 0.05
_ASK = {"model": "clinic", "messages": [{"role": "user", "content": "hello"}]}


def bodies() -> Iterator[tuple[str, bytes]]:
    """What is sent again and again, by what is wrong with it."""
    deep = BODY_BYTES // 2
    yield "deep", b'{"model": "clinic", "messages": %b%b}' % (b"[" * deep, b"]" * deep)
    level = 30
    yield "wide", b'{"model": "clinic", "seed": %b}' % (b"[" + b"[]," * (BODY_BYTES // 3 - 50) + b"[]]")
    yield "thirty deep and wide", b'{"model": "clinic", "seed": [%b0]}' % ((b"[" * level + b"]" * level + b",") * (BODY_BYTES // 61 - 1))
    yield "huge n", json.dumps({**_ASK, "n": 10**9}).encode()
    yield "a schema", json.dumps({**_ASK, "tools": [{"function": {"name": "f", "parameters": {"a": [0] * (BODY_BYTES // 4)}}}]}).encode()


async def ask(port: int, key: str, body: bytes) -> None:
    """One request and its answer; a connection that is closed meanwhile is an answer too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    try:
        for at in range(0, len(body), 65_536):
            writer.write(body[at : at + 65_536])
            await writer.drain()
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def again_and_again(port: int, key: str, body: bytes, once: asyncio.Event) -> None:
    """Ask for ever; without a pause, what is measured would be a full core and not who holds up whom."""
    while True:
        await ask(port, key, body)
        once.set()
        await asyncio.sleep(PAUSE_S)


async def trickle(port: int, key: str, once: asyncio.Event) -> None:
    """A slow loris: a header line now and then; cut off, it comes again."""
    while True:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        once.set()
        try:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n")
            for number in itertools.count():
                writer.write(b"X-%d: y\r\n" % number)
                await writer.drain()
                await asyncio.sleep(0.1)
        except ConnectionError:
            writer.close()


async def main(port: int, key: str) -> None:
    """All of them."""
    wrong = {**dict(bodies()), "big": b" " * BIG_BYTES}
    events = [asyncio.Event() for _ in range(len(wrong) + SLOW_CALLERS)]
    callers = [again_and_again(port, key, body, once) for body, once in zip(wrong.values(), events, strict=False)]
    slow = [trickle(port, key, once) for once in events[len(wrong) :]]
    tasks = [asyncio.create_task(each) for each in (*callers, *slow)]
    for event in events:
        await event.wait()
    print("ready", flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
