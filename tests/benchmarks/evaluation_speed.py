"""How fast a suite is asked: one by one, side by side, and by transformers alone; and where the time of an evaluation goes.

    python -m tests.benchmarks.evaluation_speed BASE_MODEL_FOLDER [PROMPTS]

One real vLLM on this machine answers the English clinic suite with one answer in flight, with 8 and with 32; then
`transformers.generate` answers the same prompts one by one, when vLLM has stopped, so that neither takes the other's cores. All
in one run, greedy, with the suite's limit of tokens: the ratios are the figures. Then comes a whole evaluation at 32, timed by its parts.
"""

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from evaluation.client import ChatAnswer, Endpoint, connect
from evaluation.config import EvaluationSection, ForgettingSection
from evaluation.journal import open_journal
from evaluation.lm_eval_process import TaskHost
from evaluation.perplexity import reference_logprob
from evaluation.questioning import ask_everything
from evaluation.rules import judge_answer
from evaluation.scoring import judge, load_reference_tools
from evaluation.suite import Prompt, Suite, load_suite
from serving.config import ServingSection
from serving.engine import engine_command
from serving.slot_folder import read_key
from serving.slots import SlotProcess
from training.progress import silent

T = TypeVar("T")
SUITE = Path(__file__).resolve().parents[2] / "flows" / "recipes" / "clinic_en" / "suite"
CONCURRENCY = (1, 8, 32)
ALONE = 12  # prompts asked one by one: enough for a rate, and it takes minutes otherwise
SERVED = ServingSection(public_name="bench", max_model_len=1024)


@contextmanager
def serve(model: Path, folder: Path) -> Iterator[Endpoint]:
    """The real engine on a free port of loopback."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(600)

    slot = SlotProcess(
        "bench-1", folder / "slot", lambda port: engine_command(model, "bench-1", port, SERVED, drain_s=5), start_timeout_s=600
    )
    try:
        wait(slot.start())
        wait(slot.ready())
        key = read_key(folder / "slot")
        assert key is not None
        yield Endpoint(base_url=slot.base_url, api_key=key, model="bench-1")
    finally:
        wait(slot.stop(5))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def side_by_side(items: Sequence[Prompt], concurrency: int, work: Callable[[Prompt], Coroutine[Any, Any, T]]) -> list[T]:
    """The results of `work`, with so many in flight."""
    slots = asyncio.Semaphore(concurrency)

    async def one(item: Prompt) -> T:
        async with slots:
            return await work(item)

    return list(await asyncio.gather(*(one(item) for item in items)))


async def ask(endpoint: Endpoint, suite: Suite, prompts: Sequence[Prompt], concurrency: int, *, weigh: bool = False) -> "Asked":
    """Answers, and with `weigh` the references' log-probabilities beside them."""
    async with connect(endpoint, concurrency=2 * concurrency, timeout_s=900) as client:
        context = await client.context_length()
        await client.chat(prompts[0].messages, suite.generation)
        began = time.perf_counter()
        answering = side_by_side(prompts, concurrency, lambda prompt: client.chat(prompt.messages, suite.generation))
        if weigh:
            weighing = side_by_side(prompts, concurrency, lambda prompt: reference_logprob(client, prompt, context))
            answers, _ = await asyncio.gather(answering, weighing)
        else:
            answers = await answering
    return Asked(answers, time.perf_counter() - began)


async def weigh(endpoint: Endpoint, prompts: Sequence[Prompt], concurrency: int) -> float:
    """Seconds for the references' log-probabilities alone."""
    async with connect(endpoint, concurrency=concurrency, timeout_s=900) as client:
        context = await client.context_length()
        began = time.perf_counter()
        await side_by_side(prompts, concurrency, lambda prompt: reference_logprob(client, prompt, context))
    return time.perf_counter() - began


class Asked:
    """Answers and the seconds they took together."""

    def __init__(self, answers: Sequence[ChatAnswer], wall_s: float) -> None:
        self.answers, self.wall_s = answers, wall_s
        self.tokens = sum(answer.completion_tokens or 0 for answer in answers)

    @property
    def rate(self) -> float:
        """Tokens a second, all answers together."""
        return self.tokens / self.wall_s

    def latency_s(self, share: float) -> float:
        """A quantile of the latencies."""
        return sorted(answer.latency_s for answer in self.answers)[round(share * (len(self.answers) - 1))]


def generate_alone(model: Path, suite: Suite, prompts: Sequence[Prompt]) -> tuple[int, float]:
    """(tokens, seconds) of transformers.generate, one prompt after the other, in the weights' own type."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()

    def written(prompt: Prompt) -> int:
        turns = [message.model_dump() for message in prompt.messages]
        given = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = loaded.generate(**given, max_new_tokens=suite.generation.max_tokens, do_sample=False)
        return int(out.shape[1] - given["input_ids"].shape[1])

    written(prompts[0])
    began = time.perf_counter()
    tokens = sum(written(prompt) for prompt in prompts)
    return tokens, time.perf_counter() - began


def print_rates(endpoint: Endpoint, suite: Suite, prompts: Sequence[Prompt]) -> float:
    """The table of concurrencies; returns the rate of one in flight."""
    print(f"{'in flight':>10} {'prompts':>8} {'tokens':>7} {'s':>7} {'tokens/s':>9} {'× one':>6} {'p50 s':>7} {'p95 s':>7}")
    alone = 0.0
    for concurrency in CONCURRENCY:
        asked = asyncio.run(ask(endpoint, suite, prompts[:ALONE] if concurrency == 1 else prompts, concurrency))
        alone = alone or asked.rate
        counts = f"{concurrency:>10} {len(asked.answers):>8} {asked.tokens:>7} {asked.wall_s:>7.1f} {asked.rate:>9.1f}"
        print(f"{counts} {asked.rate / alone:>6.1f} {asked.latency_s(0.5):>7.2f} {asked.latency_s(0.95):>7.2f}", flush=True)
    return alone


def print_overlap(endpoint: Endpoint, suite: Suite, prompts: Sequence[Prompt]) -> None:
    """Log-probabilities after the answers, and beside them."""
    asked = asyncio.run(ask(endpoint, suite, prompts, CONCURRENCY[-1]))
    weighed_s = asyncio.run(weigh(endpoint, prompts, CONCURRENCY[-1]))
    both = asyncio.run(ask(endpoint, suite, prompts, CONCURRENCY[-1], weigh=True))
    after_s = asked.wall_s + weighed_s
    print(f"\nanswers {asked.wall_s:.1f} s, then log-probabilities {weighed_s:.1f} s: {after_s:.1f} s; beside: {both.wall_s:.1f} s")
    print(f"p95 of an answer: {asked.latency_s(0.95):.2f} s alone, {both.latency_s(0.95):.2f} s beside log-probabilities", flush=True)


def print_parts(endpoint: Endpoint, suite: Suite, host: TaskHost, folder: Path) -> None:
    """A whole evaluation, by its parts."""
    section = EvaluationSection(suite=SUITE, concurrency=CONCURRENCY[-1], timeout_s=900)
    forgetting = section.forgetting or ForgettingSection()
    parts: dict[str, float] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = work()
        parts[name] = time.perf_counter() - began
        return result

    with open_journal(folder / "answers.jsonl", "bench", batch=32) as journal:
        only_answers = section.model_copy(update={"perplexity": False})
        timed("answers", lambda: asyncio.run(ask_everything(endpoint, suite, only_answers, journal, silent)))
        timed("log-probabilities", lambda: asyncio.run(ask_everything(endpoint, suite, section, journal, silent)))
        timed("forgetting tasks", lambda: host.run(endpoint, forgetting, section.concurrency))
        load_reference_tools(suite.language)
        chats = [(prompt, journal.answers[prompt.id, 0]) for prompt in suite.prompts]
        timed("rules alone", lambda: [judge_answer(suite.rules, prompt, chat.text) for prompt, chat in chats])
        timed("rules and text scores", lambda: [judge(suite, prompt, chat) for prompt, chat in chats])
    whole = sum(seconds for name, seconds in parts.items() if name != "rules alone")
    print("\nparts of an evaluation")
    for name, seconds in parts.items():
        print(f"  {name:<24} {seconds:>8.2f} s {seconds / whole:>7.1%}")


def main(argv: list[str]) -> None:
    """Print every table."""
    model, suite = Path(argv[1]), load_suite(SUITE)
    prompts = suite.prompts[: int(argv[2])] if len(argv) > 2 else suite.prompts
    suite = suite.model_copy(update={"prompts": prompts})
    with tempfile.TemporaryDirectory() as scratch, TaskHost() as host:
        began = time.perf_counter()
        host.warm_up(ForgettingSection())
        with serve(model, Path(scratch)) as endpoint:
            print(f"{len(prompts)} prompts; engine ready after {time.perf_counter() - began:.1f} s", flush=True)
            alone = print_rates(endpoint, suite, prompts)
            print_overlap(endpoint, suite, prompts)
            print_parts(endpoint, suite, host, Path(scratch))
    tokens, seconds = generate_alone(model, suite, prompts[:ALONE])
    rate = tokens / seconds
    print(f"\ntransformers.generate, one by one: {tokens} tokens in {seconds:.1f} s, {rate:.1f} tokens/s, {rate / alone:.2f} × vLLM's one")


if __name__ == "__main__":
    main(sys.argv)
