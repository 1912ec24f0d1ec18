"""The real server under a low, mixed load for a long time: does its memory stay flat, and are its counters those of its callers?

    python -m tests.benchmarks.gateway_soak FOLDER [--minutes 30] [--rate 15]

The server is what `tunegate serve` runs (supervisor, registry, controller, live checks, gateway) over one stub engine. Of ten requests
four are plain, three are streams to the end, one is a stream whose caller leaves in the middle, one has a wrong key and one asks for an
unknown model. FOLDER gets `soak.csv` and `soak.png`. Flat means: the second half's slope, a straight line through it, is printed.
"""

import argparse
import asyncio
import csv
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import psutil
from PIL import Image, ImageDraw
from pydantic import SecretStr

from serving.keys import Scope
from serving.records import SlotState
from serving.registry import Registry
from serving.slots import free_port
from tests.benchmarks.rollout_switch import ROOT, SERVE, until
from tests.fakes_serving import champion, write_model

TOKEN_S, WORDS, EVERY_S = 0.02, 20, 10.0
KINDS = ("plain",) * 4 + ("stream",) * 3 + ("leaves", "wrong_key", "wrong_model")
# What the gateway must call each of them.
OUTCOMES = {"plain": "ok", "stream": "ok", "leaves": "aborted", "wrong_key": "rejected", "wrong_model": "rejected"}


@dataclass(frozen=True)
class Point:
    """One look at the server process. `helper_mb` is its process of live checks."""

    minutes: float
    server_mb: float
    helper_mb: float
    open_files: int
    requests: int
    cpu_s: float


class Callers:
    """Sends requests at a rate whatever becomes of the earlier ones, and knows what it should have been told."""

    def __init__(self, port: int, key: SecretStr) -> None:
        self._url, self._key = f"http://127.0.0.1:{port}/v1/chat/completions", key.get_secret_value()
        self.sent: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    async def run(self, per_s: float, seconds: float) -> None:
        """Until the time is up and the last answer is in."""
        began, draw = time.monotonic(), random.Random(1)  # a mixture, no secret
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as asked:
            while (now := time.monotonic() - began) < seconds:
                asked.create_task(self._one(session, draw.choice(KINDS)))
                await asyncio.sleep(max(0.0, self.sent.total() / per_s - now))

    async def _one(self, session: aiohttp.ClientSession, kind: str) -> None:
        self.sent[kind] += 1
        try:
            fault = await self._ask(session, kind)
        except (aiohttp.ClientError, TimeoutError) as error:
            fault = type(error).__name__
        if fault:
            self.faults[f"{kind}: {fault}"] += 1

    async def _ask(self, session: aiohttp.ClientSession, kind: str) -> str:
        body = {
            "model": "nobody" if kind == "wrong_model" else "clinic",
            "messages": [{"role": "user", "content": "hello " * random.randrange(1, 60)}],
            "stream": kind in ("stream", "leaves"),
            "max_tokens": WORDS,
        }
        headers = {"Authorization": f"Bearer {'wrong' if kind == 'wrong_key' else self._key}"}
        async with session.post(self._url, json=body, headers=headers) as answer:
            if kind == "leaves":
                await answer.content.readuntil(b"\n\n")
                answer.close()
                return ""
            text = await answer.read()
            expected = {"wrong_key": 401, "wrong_model": 404}.get(kind, 200)
            whole = kind != "stream" or (text.count(b"data: {") == WORDS and text.endswith(b"data: [DONE]\n\n"))
            return "" if answer.status == expected and whole else f"status {answer.status}, {len(text)} bytes"


async def watch(server: psutil.Process, callers: Callers, points: list[Point]) -> None:
    """Look at the process until cancelled."""
    began = time.monotonic()
    while True:
        helpers = [child for child in server.children() if "serving.live_check" in child.cmdline()]
        points.append(
            Point(
                minutes=round((time.monotonic() - began) / 60, 3),
                server_mb=round(server.memory_info().rss / 1e6, 2),
                helper_mb=round(sum(helper.memory_info().rss for helper in helpers) / 1e6, 2),
                open_files=server.num_fds(),
                requests=callers.sent.total(),
                cpu_s=round(sum(server.cpu_times()[:2]), 2),
            )
        )
        await asyncio.sleep(EVERY_S)


async def counted(port: int) -> Counter[str]:
    """Requests by outcome, as the metrics page says."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as page:
        lines = re.findall(r'^tunegate_requests_total\{.*outcome="(\w+)".*\} (\S+)$', await page.text(), re.MULTILINE)
    total: Counter[str] = Counter()
    for outcome, value in lines:
        total[outcome] += int(float(value))
    return total


async def soak(port: int, key: SecretStr, pid: int, seconds: float, per_s: float) -> tuple[list[Point], Callers, Counter[str]]:
    """The whole run."""
    callers, points = Callers(port, key), list[Point]()
    watching = asyncio.create_task(watch(psutil.Process(pid), callers, points))
    try:
        await callers.run(per_s, seconds)
        await asyncio.sleep(2)
    finally:
        watching.cancel()
    return points, callers, await counted(port)


def slope(points: Sequence[Point]) -> float:
    """Megabytes an hour by which the server grew over the second half: least squares."""
    half = points[len(points) // 2 :]
    x, y = [point.minutes / 60 for point in half], [point.server_mb for point in half]
    middle, mean = sum(x) / len(x), sum(y) / len(y)
    return sum((a - middle) * (b - mean) for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def draw(points: Sequence[Point], path: Path) -> None:
    """The memory curve."""
    width, height, left, bottom = 900, 360, 60, 30
    top = max(point.server_mb for point in points) * 1.2
    end = points[-1].minutes or 1.0
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)

    def place(minutes: float, megabytes: float) -> tuple[float, float]:
        return left + minutes / end * (width - left - 15), (height - bottom) - megabytes / top * (height - bottom - 15)

    for part in range(6):
        y = place(0, top * part / 5)[1]
        pen.line([(left, y), (width - 15, y)], fill="#dddddd")
        pen.text((8, y - 6), f"{top * part / 5:.0f} MB", fill="black")
        pen.text((place(end * part / 5, 0)[0] - 8, height - bottom + 8), f"{end * part / 5:.0f} min", fill="black")
    for name, colour in (("server_mb", "#1f77b4"), ("helper_mb", "#ff7f0e")):
        pen.line([place(point.minutes, getattr(point, name)) for point in points], fill=colour, width=2)
    pen.text((left + 8, 8), "blue: server (gateway, supervisor, controller)   orange: live checks", fill="black")
    image.save(path)


def report(points: Sequence[Point], callers: Callers, metrics: Counter[str]) -> None:
    """What came of it."""
    told = Counter[str]()
    for kind, sent in callers.sent.items():
        told[OUTCOMES[kind]] += sent
    first, last = points[1 if len(points) > 1 else 0], points[-1]
    print(f"{last.minutes:.1f} minutes, {callers.sent.total()} requests: {dict(sorted(callers.sent.items()))}")
    print(f"not as they should be: {dict(callers.faults) or 'none'}")
    print(f"callers say {dict(sorted(told.items()))}, the metrics page says {dict(sorted(metrics.items()))}")
    print(f"server {first.server_mb:.1f} MB at first, {last.server_mb:.1f} at the end, {max(p.server_mb for p in points):.1f} at most")
    print(f"second half: {slope(points):+.2f} MB an hour; open files {first.open_files} -> {last.open_files}")
    print(
        f"CPU of the server: {(last.cpu_s - first.cpu_s) / (last.requests - first.requests) * 1e6:.0f} us a request, all it does included"
    )


def main() -> None:
    """Start a server, ask it for so long, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=15.0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        home, port = Path(name) / "home", free_port()
        with Registry(f"sqlite:///{home / 'registry.db'}") as registry:
            champion(registry, digest=write_model(Path(name) / "a"), folder=Path(name) / "a")
            _, key = registry.create_key("soak", [Scope.INFER])
            env = {**os.environ, "PYTHONPATH": str(ROOT), "TUNEGATE_HOME": str(home), "TUNEGATE_PORT": str(port)}
            server = subprocess.Popen([sys.executable, "-c", SERVE, str(TOKEN_S)], cwd=ROOT, env=env)
            try:
                until(lambda: registry.server() is not None and any(slot.state is SlotState.READY for slot in registry.slots()), 300)
                points, callers, metrics = asyncio.run(soak(port, key, server.pid, given.minutes * 60, given.rate))
            finally:
                server.terminate()
                server.wait(60)
    with (given.folder / "soak.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(points[0])))
        writer.writeheader()
        writer.writerows(map(asdict, points))
    draw(points, given.folder / "soak.png")
    report(points, callers, metrics)


if __name__ == "__main__":
    main()
