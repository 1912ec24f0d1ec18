"""The real vLLM, started once with a model made on the spot: what it answers, what it does when a caller goes, and how it ends."""

import asyncio
import json
import math
import stat
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import psutil
import pytest

from evaluation.client import Endpoint, connect
from evaluation.config import EvaluationSection, ForgettingSection
from evaluation.lm_eval_run import run_tasks
from evaluation.lm_eval_tasks import TASKS_FOLDER, load_tasks
from evaluation.perplexity import reference_logprob, windows
from evaluation.records import Scorecard
from evaluation.scoring import score_endpoint
from evaluation.suite import Generation, Message, Prompt, load_suite
from serving.config import ServingSection
from serving.engine import engine_command
from serving.slot_folder import read_key
from serving.slots import SlotProcess
from tests.fakes_engine_tiny import tiny_model, tiny_tokenizer
from tests.fakes_suites import many_prompts, write_suite
from training.chat import prompt_ids
from training.progress import silent

T = TypeVar("T")

DRAIN_S = 30.0
SERVED = ServingSection(public_name="clinic", max_model_len=512, max_num_seqs=4, dtype="float32")


@dataclass
class Served:
    """A real slot, and the model it serves as transformers has it."""

    slot: SlotProcess
    loop: asyncio.AbstractEventLoop
    folder: Path
    tokenizer: Any
    model: Any

    @property
    def endpoint(self) -> Endpoint:
        key = read_key(self.folder)
        assert key is not None
        return Endpoint(base_url=self.slot.base_url, api_key=key, model="clinic-1")

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the slot's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(300)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    slot = SlotProcess(
        "clinic-1",
        folder / "slot",
        lambda port: engine_command(folder / "model", "clinic-1", port, SERVED, drain_s=DRAIN_S),
        start_timeout_s=300,
    )
    made = Served(slot, loop, folder / "slot", tokenizer, model)
    try:
        made.wait(slot.start())
        made.wait(slot.ready())
        yield made
    finally:
        made.wait(slot.stop(5))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def rendered(served: Served, messages: Sequence[Message]) -> list[int]:
    return prompt_ids(served.tokenizer, [message.model_dump() for message in messages])


@pytest.mark.vllm
@pytest.mark.slow
def test_the_real_engine_answers_a_chat_with_the_models_own_greedy_tokens(served: Served) -> None:
    import torch

    messages = (Message(role="user", content="Prompt 0?"),)

    async def chat() -> str:
        async with connect(served.endpoint, concurrency=1, timeout_s=60) as client:
            return (await client.chat(messages, Generation(max_tokens=8, temperature=0))).text

    ids = torch.tensor([rendered(served, messages)])
    written = served.model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert asyncio.run(chat()) == served.tokenizer.decode(written, skip_special_tokens=True)


def token_logprobs(served: Served, ids: Sequence[int], start: int) -> list[float]:
    """The model's own log-probabilities of ids[start:], each given all those before it."""
    import torch

    with torch.no_grad():
        logprobs = torch.log_softmax(served.model(torch.tensor([list(ids)])).logits[0].double(), dim=-1)
    return [float(logprobs[place - 1, ids[place]]) for place in range(start, len(ids))]


def perplexity(logprobs: Sequence[float]) -> float:
    return math.exp(-sum(logprobs) / len(logprobs))


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 70], ids=["in one window", "longer than the context"])
def test_the_real_engines_perplexity_is_that_of_the_model(served: Served, times: int) -> None:
    """Both compute in 32 bits with other kernels: equal to 0.1 %. An even guess over the vocabulary would be its size."""
    reference = "Call 911 now. Please see a doctor today. " * times
    prompt = Prompt(id="p", topic="pain", messages=(Message(role="user", content="Prompt 0?"),), reference=reference)

    async def over_the_api() -> tuple[tuple[float, int], int]:
        async with connect(served.endpoint, concurrency=1, timeout_s=60) as client:
            context = await client.context_length()
            return await reference_logprob(client, prompt, context), context

    (logprob, tokens), context = asyncio.run(over_the_api())
    before = rendered(served, prompt.messages)
    whole = before + served.tokenizer(reference, add_special_tokens=False)["input_ids"]
    plan = list(windows(len(before), len(whole), context - 1))
    expected = [value for part in plan for value in token_logprobs(served, whole[part.first : part.last], part.scored - part.first)]
    assert (context, len(plan) > 1) == (512, times > 1)
    assert tokens == len(expected)
    assert math.exp(-logprob / tokens) == pytest.approx(perplexity(expected), rel=1e-3)
    assert abs(math.log(perplexity(expected) / len(served.tokenizer))) > 0.1


@pytest.mark.vllm
@pytest.mark.slow
def test_lm_eval_asks_the_real_engine_what_the_model_itself_finds_most_likely(served: Served) -> None:
    (score,) = run_tasks(served.endpoint, ForgettingSection(items=8), 4)

    def likely(item: dict[str, Any]) -> int:
        question = f"Question: {item['question']}\nAnswer:"
        start = len(served.tokenizer(question, add_special_tokens=False)["input_ids"])
        asked = [served.tokenizer(f"{question} {choice}", add_special_tokens=False)["input_ids"] for choice in item["choices"]]
        sums = [sum(token_logprobs(served, ids, start)) for ids in asked]
        return sums.index(max(sums))

    items = load_tasks(TASKS_FOLDER)["general_knowledge"].items[:8]
    assert list(score.correct) == [likely(item) == item["answer"] for item in items]


@pytest.mark.vllm
@pytest.mark.slow
def test_the_real_engine_is_measured_whole_and_draws_another_answer_for_each_seed(served: Served, tmp_path: Path) -> None:
    suite = load_suite(write_suite(tmp_path, prompts=many_prompts(2), temperature=1.0, max_tokens=16))
    section = EvaluationSection(suite=tmp_path, concurrency=4, repetitions=3, forgetting=None)

    def measure(out: Path) -> Scorecard:
        return score_endpoint(served.endpoint, suite, section, model_digest="m", subject="tiny", out=out, report=silent)

    card = measure(tmp_path / "card")
    assert [(answer.prompt_id, answer.repetition) for answer in card.answers] == [(p, r) for p in ("p0", "p1") for r in range(3)]
    assert len({answer.answer for answer in card.answers}) == 6
    missing = {name for name, value in card.metrics.items() if value is None}
    assert missing == {"accuracy", "judge_pass_rate", "macro_f1", "forgetting_accuracy", "major_failures", "minor_failures"}


@pytest.mark.vllm
@pytest.mark.slow
def test_the_key_of_the_real_engine_is_in_no_command_line_and_its_file_is_private(served: Served) -> None:
    key = served.endpoint.api_key.get_secret_value()
    family = [psutil.Process(served.slot.pid), *psutil.Process(served.slot.pid).children(recursive=True)]
    assert len(family) >= 2
    assert not [process for process in family if key in " ".join(process.cmdline())]
    assert stat.S_IMODE((served.folder / "key").stat().st_mode) == 0o600
    assert key not in (served.folder / "vllm.log").read_text(encoding="utf-8", errors="replace")


LONG = {"model": "clinic-1", "prompt": "Prompt 0?", "max_tokens": 400, "ignore_eos": True, "stream": True, "temperature": 0}


@asynccontextmanager
async def streaming(served: Served) -> AsyncIterator[aiohttp.StreamReader]:
    """A long answer that has begun."""
    headers = {"Authorization": f"Bearer {served.endpoint.api_key.get_secret_value()}"}
    url = f"{served.slot.base_url}/v1/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=LONG, headers=headers) as answer:
        assert answer.status == 200
        assert (await answer.content.readline()).startswith(b"data: {")
        yield answer.content


async def metric(served: Served, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{served.slot.base_url}/metrics") as page:
        lines = (await page.text()).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


@pytest.mark.vllm
@pytest.mark.slow
def test_the_real_engine_stops_working_for_a_caller_who_hangs_up(served: Served) -> None:
    """Had it gone on, it would have made 400 tokens."""

    async def story() -> tuple[float, float]:
        before = await metric(served, "vllm:generation_tokens_total")
        async with streaming(served):
            pass
        began = time.monotonic()
        while await metric(served, "vllm:num_requests_running"):
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.05)
        return before, await metric(served, "vllm:generation_tokens_total")

    before, after = asyncio.run(story())
    assert 0 < after - before < 400


@pytest.mark.vllm
@pytest.mark.slow
def test_a_stopped_real_engine_ends_its_stream_first_and_leaves_no_process_and_no_key(served: Served) -> None:
    """The last test of the engine: it ends it. vLLM's own default would cut the stream."""
    family = [psutil.Process(served.slot.pid), *psutil.Process(served.slot.pid).children(recursive=True)]

    async def stopped_in_mid_stream() -> list[bytes]:
        async with streaming(served) as answer:
            stopping = asyncio.create_task(asyncio.to_thread(served.wait, served.slot.stop(DRAIN_S)))
            events = [line async for line in answer if line.startswith(b"data: ")]
            assert not stopping.done()
            await stopping
            return events

    events = asyncio.run(stopped_in_mid_stream())
    assert events[-1].strip() == b"data: [DONE]"
    assert json.loads(events[-2][6:])["choices"][0]["finish_reason"] == "length"
    assert len(family) >= 2
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert read_key(served.folder) is None
