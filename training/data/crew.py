"""The processes that refine chunks of rows: none for a few rows, one for each core as soon as there are more.

Chunks come back in reading order, whoever refined them. A process that is killed is one clear error, and none outlives its parent.
Knows nothing of what the steps do. Next: `refine.py`; `gather.py` takes what comes back.
"""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from training.data.config import DataSection
from training.data.formats import Stage as Stage
from training.data.leakage import SuitePrompt
from training.data.read_record import Read
from training.data.refine import Measure, Refined, Refiner
from training.data.sources import Source, SourceSection
from training.errors import DataError

MakeMeasure = Callable[[], Measure]

_PR_SET_PDEATHSIG = 1
_CHUNK_ROWS = 500
_INLINE_ROWS = 2_000  # fewer rows than this are done before a pool of processes has started

Chunk = tuple[int, SourceSection, Stage, list[Read]]


def chunks_of(stages: Sequence[Stage], sources: Sequence[Source]) -> Iterator[Chunk]:
    for number, (stage, source) in enumerate(zip(stages, sources, strict=True)):
        rows = iter(source)
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            yield number, source.section, stage, chunk


class Crew:
    """The processes that refine chunks: none for a few rows, a pool as soon as there are more."""

    def __init__(self, data: DataSection, prompts: Sequence[SuitePrompt], max_tokens: int | None, make_measure: MakeMeasure | None) -> None:
        self._workers = data.workers or len(os.sched_getaffinity(0))
        self._pool: ProcessPoolExecutor | None = None

        def build() -> Refiner:
            return Refiner(data, prompts, max_tokens, make_measure() if make_measure else None)

        self._build = build

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            gc.unfreeze()

    def refine(self, chunks: Iterator[Chunk], tell: Callable[[int], None]) -> Iterator[tuple[int, Refined]]:
        """Refined chunks in reading order, a few ahead of whoever takes them."""
        first, rows = [], 0
        for chunk in chunks:
            first.append(chunk)
            rows += len(chunk[3])
            if rows > _INLINE_ROWS:
                break
        if rows <= _INLINE_ROWS or self._workers == 1:
            refiner = self._build()
            for number, section, stage, reads in _then(first, chunks):
                yield number, refiner.refine(section, stage, reads)
                tell(number)
            return
        yield from self._refine_in_pool(_then(first, chunks), tell)

    def _refine_in_pool(self, chunks: Iterator[Chunk], tell: Callable[[int], None]) -> Iterator[tuple[int, Refined]]:
        # Forked once the tokenizer and every table are there, so that all workers share the memory that they take.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive the fork, and every core has a worker
        refiner = self._build()
        refiner.warm()
        gc.freeze()  # a collection in a worker would write to every object, and so copy it
        fork = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(self._workers, fork, _become_worker, (refiner,))
        ahead: deque[tuple[int, Future[Refined]]] = deque()
        for number, section, stage, reads in chunks:
            ahead.append((number, self._pool.submit(_work, section, stage, reads)))
            if len(ahead) > 2 * self._workers:
                yield _done(*ahead.popleft(), tell)
        while ahead:
            yield _done(*ahead.popleft(), tell)


def _done(number: int, chunk: Future[Refined], tell: Callable[[int], None]) -> tuple[int, Refined]:
    try:
        refined = chunk.result()
    except BrokenProcessPool:
        raise DataError(
            "a process that prepares rows was killed", why="most often memory ran out", do="set `data.workers` to fewer, then run again"
        ) from None
    tell(number)
    return number, refined


def _then(first: list[Chunk], rest: Iterator[Chunk]) -> Iterator[Chunk]:
    yield from first
    yield from rest


_own: list[Refiner] = []  # the worker process's


def _become_worker(refiner: Refiner) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the work in order
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":  # killed outright, the parent can tell nobody, and a worker would wait for ever
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _own[:] = [refiner]


def _work(section: SourceSection, stage: Stage, reads: list[Read]) -> Refined:
    return _own[0].refine(section, stage, reads)
