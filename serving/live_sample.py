"""Takes a bounded sample of live answers and has another process look at them, off the way of every caller.

So many a minute, whatever the traffic; half of them are a canary's while there is one, or its small share would show too few for anybody
to see that it talks nonsense. What finds no place in a short queue is counted and forgotten. Texts go down a pipe to
`live_check.py` and nowhere else, and only numbers come back. When that process dies, it is started again after a while.
Next: `live_check.py`.
"""

import asyncio
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

from pydantic import TypeAdapter

from serving.gateway_order import Side
from serving.keeping import Kept
from serving.live_figures import Checked, NotChecked, Sample
from serving.metrics_beside import LiveMetrics

_log = logging.getLogger(__name__)

_MOST_WAITING = 32
_MOST_CHARACTERS = 32_768
_MOST_LINE_BYTES = 1 << 20
_RESTART_S = 30.0
# So long after the last request for a name with a canary, half of the sample is still kept for canaries.
_CANARY_STAYS_S = 60.0
_FINDING: TypeAdapter[Checked | NotChecked] = TypeAdapter(Checked | NotChecked)


class Turns:
    """When the next answer is to be looked at.

    Args:
        per_minute: most of them in a minute; 0: none.
        is_time: now, seconds between two, whether it is about canaries -> whether one is due; if so, it is taken.
    """

    def __init__(self, per_minute: float, is_time: Callable[[float, float, bool], bool]) -> None:
        self._per_minute, self._is_time, self._canary_until_s = per_minute, is_time, 0.0

    def due(self, side: Side, now_s: float) -> bool:
        """Whether this answer is; then the next one is later."""
        if not self._per_minute:
            return False
        if side != "alone":
            self._canary_until_s = now_s + _CANARY_STAYS_S
        halves = 2 if now_s < self._canary_until_s else 1
        return self._is_time(now_s, halves * 60 / self._per_minute, side == "canary")


class LiveSample:
    """The gateway's side: `wants` and `offer` are called for requests and only ever count and append.

    Args:
        folder: holds the references, by release.
        per_minute: most answers looked at in a minute; 0 looks at none.
    """

    def __init__(self, folder: Path, metrics: LiveMetrics, *, per_minute: float, clock: Callable[[], float] = monotonic) -> None:
        self._folder, self._metrics, self._clock = folder, metrics, clock
        self._next_s, self._turns = [0.0, 0.0], Turns(per_minute, self._is_time)
        self._waiting: asyncio.Queue[Sample] = asyncio.Queue(_MOST_WAITING)

    def wants(self, side: Side) -> bool:
        """Whether it is time for another one."""
        return self._turns.due(side, self._clock())

    def _is_time(self, now_s: float, every_s: float, of_canaries: bool) -> bool:
        if now_s < self._next_s[of_canaries]:
            return False
        self._next_s[of_canaries] = now_s + every_s
        return True

    def offer(self, record: Kept) -> None:
        """Have an answer looked at, if there is room for it."""
        release, answer = str(record.facts["release"]), record.texts.get("answer", "")
        texts = [text for name, text in record.texts.items() if name != "answer"]
        if not answer:
            self._metrics.unchecked(release, "no_text")  # a call of a tool, for instance
        elif len(answer) + sum(map(len, texts)) > _MOST_CHARACTERS:
            self._metrics.unchecked(release, "too_long")
        else:
            roles = record.roles or ["user"] * len(texts)
            self._put(Sample(release=release, turns=tuple(zip(roles, texts, strict=True)), answer=answer))

    def _put(self, sample: Sample) -> None:
        try:
            self._waiting.put_nowait(sample)
        except asyncio.QueueFull:
            self._metrics.unchecked(sample.release, "busy")

    async def run(self) -> None:
        """Until cancelled: pass samples on and count what comes back. The process is started with the first sample."""
        while True:
            sample = await self._waiting.get()
            try:
                await self._pass_on(sample)
            except (OSError, ValueError) as error:  # ValueError: what came back is no finding, such as nothing at all
                _log.error("the process that looks at live answers has died (%s); once more in %g s", type(error).__name__, _RESTART_S)
            await asyncio.sleep(_RESTART_S)

    async def _pass_on(self, sample: Sample) -> None:
        process = await self._start()
        try:
            while True:
                try:
                    self._count(await _found(process, sample))
                except (OSError, ValueError):
                    self._metrics.unchecked(sample.release, "busy")
                    raise
                sample = await self._waiting.get()
        finally:
            await _end(process)

    def _count(self, finding: Checked | NotChecked) -> None:
        if isinstance(finding, Checked):
            self._metrics.checked(finding)
        else:
            self._metrics.unchecked(finding.release, finding.reason)

    async def _start(self) -> Process:
        # It gets no setting of ours: the registry's address may hold a password.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNEGATE_")}
        argv = (sys.executable, "-m", "serving.live_check", str(self._folder))
        return await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, env=environment, limit=_MOST_LINE_BYTES)


async def _found(process: Process, sample: Sample) -> Checked | NotChecked:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(sample.model_dump_json().encode() + b"\n")
    await process.stdin.drain()
    return _FINDING.validate_json(await process.stdout.readline())


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
