"""A merged model and its base, tiny and made on the spot, and real servers of them: so that faults can be planted on either side."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.client import Endpoint
from evaluation.config import EvaluationSection
from evaluation.parity import broken_bytes, check_parity, identity_only
from evaluation.parity_records import Dtype, FaultKind, ParityReport, TrainerView
from evaluation.suite import Suite, load_suite
from flows.rendering import view_of_trainer, weights_of
from serving.config import ServingSection
from serving.engine import engine_command
from serving.slot_folder import read_key
from serving.slots import SlotProcess
from tests.fakes_suites import many_prompts, write_suite
from training.errors import RecordError
from training.records import BaseModelRecord, MergeCertificate, MergedModel, MergeMeasurement, digest_files, verify_files

NOW = "2030-01-01T00:00:00+00:00"
CONTEXT = 512
_OTHER_WORDS = ["Zeitung und Wetter, Berge und Seen. Guten Morgen, wie geht es dir heute? Danke, sehr gut, und selbst?"]
_WORDS = ["Call 911 now. Please see a doctor today.", "system user assistant tool Be careful.", "Does it hurt? Prompt 0? Hello, why?"]

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_GENERATION_PROMPT = TEMPLATE.replace("add_generation_prompt", "false")
# As many models' own templates do, and as a careless copy of one does not.
OTHER_TEMPLATE = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe careful.<|im_end|>\n{% endif %}" + TEMPLATE


def write_base(folder: Path) -> Path:
    """A Llama of two layers of width 64 in bfloat16, whose wide first values make its predictions far from even."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    tokenizer = _tokenizer(_WORDS)
    width = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, initializer_range=0.3, **width, **special)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    BaseModelRecord(created_at=NOW, source="tiny", folder=str(folder), files=digest_files(folder)).write(folder)
    return folder


def write_merged(base: Path, folder: Path, *, seed: int = 8) -> Path:
    """The base with a small update in every matrix of its layers; another seed is another training."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(seed)
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("record.json"))
    weights = load_file(base / "model.safetensors")
    changed = {name: (each + 0.1 * torch.randn_like(each)).contiguous() if "proj" in name else each for name, each in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return write_merge_record(base, folder)


def write_merge_record(base: Path, folder: Path) -> Path:
    """Say of a folder that it is a merge as it lies there now."""
    measured = MergeMeasurement(variant="bf16_base", kl_nats=0.1, flip_rate=0.1, perplexity=2.0, rule_passes=1, rule_prompts=1)
    trained = measured.model_copy(update={"variant": "trained"})
    certificate = MergeCertificate(trained=trained, measurements=(measured,), chosen="bf16_base", reason="by hand")
    digest, files = BaseModelRecord.read(base).digest, digest_files(folder)
    MergedModel(created_at=NOW, base_digest=digest, adapter_digest="a" * 64, certificate=certificate, files=files).write(folder)
    return folder


def altered(folder: Path, copy: Path, *, template: str | None = None, words: list[str] | None = None, **generation: Any) -> Path:
    """A copy with another chat template, a tokenizer trained on other words, or other generation defaults; without a record."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("record.json"))
    if words is not None:
        _tokenizer(words).save_pretrained(copy)
    if template is not None:
        (copy / "chat_template.jinja").write_text(template, encoding="utf-8")
    path = copy / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | generation), encoding="utf-8")
    return copy


def end_at(folder: Path, token: str) -> Path:
    """Have the tokenizer of a folder name another end token."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"eos_token": token}), encoding="utf-8")
    return folder


def view_of(model: Path, base: Path, suite: Suite, out: Path) -> TrainerView:
    """What the render stage writes."""
    return view_of_trainer(model, MergedModel.read(model), base, BaseModelRecord.read(base), suite, CONTEXT, out, NOW)


def compared(
    endpoint: Endpoint, suite: Suite, trained: TrainerView, served: Path, *, dtype: Dtype = "bfloat16", context: int = CONTEXT
) -> ParityReport:
    """What the line would find of a server of the folder `served`."""
    identity = identity_only("tiny-1", trained.model_digest, suite.digest, weights_of(digest_files(served)))
    section = EvaluationSection(suite=Path("suite"), concurrency=32)
    return check_parity(endpoint, suite, section, trained, identity, context_tokens=context, dtype=dtype)


@contextmanager
def real_server(model: Path, folder: Path, *, dtype: Dtype = "bfloat16", context: int = CONTEXT) -> Iterator[Endpoint]:
    """The real vLLM with the line's own options."""
    section = ServingSection(public_name="tiny", max_model_len=context, max_num_seqs=32, dtype=dtype)
    slot = SlotProcess("tiny-1", folder, lambda port: engine_command(model, "tiny-1", port, section, drain_s=2), start_timeout_s=300)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(slot.start(), loop).result(30)
        asyncio.run_coroutine_threadsafe(slot.ready(), loop).result(310)
        key = read_key(folder)
        assert key is not None
        yield Endpoint(base_url=slot.base_url, api_key=key, model="tiny-1")
    finally:
        asyncio.run_coroutine_threadsafe(slot.stop(2), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _tokenizer(words: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(words, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet))
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|endoftext|>")
    made.chat_template = TEMPLATE
    return made


@dataclass(frozen=True)
class Planted:
    """One fault, planted in a server or on the trainer's side, and the kind of fault that it must be reported as."""

    name: str
    expected: FaultKind
    seen_in: str


# `careless` is a server of a folder in which everything beside the weights is wrong, and each fault must be found beside the others;
# the rest are other trainer's views, compared with a server that is honest about another model.
PLANTED = (
    Planted("another template", FaultKind.TEMPLATE, "templated"),
    Planted("a missing generation prompt", FaultKind.GENERATION_PROMPT, "careless"),
    Planted("a lost end-of-turn token", FaultKind.END_OF_TURN, "careless"),
    Planted("a stop token too many", FaultKind.STOP_TOKENS, "careless"),
    Planted("changed generation_config.json", FaultKind.DEFAULTS, "careless"),
    Planted("another context length", FaultKind.CONTEXT, "careless"),
    Planted("float16 served, bfloat16 meant", FaultKind.DTYPE, "careless"),
    Planted("a swapped tokenizer", FaultKind.TOKENIZER, "swapped"),
    Planted("base weights served", FaultKind.BASE_SERVED, "from_served"),
    Planted("an adapter not applied by the merge", FaultKind.ADAPTER_LOST, "unmerged"),
    Planted("weights of another training served", FaultKind.WEIGHTS, "retrained"),
    Planted("one flipped bit in a shard", FaultKind.BYTES, "flipped"),
    Planted("one flipped bit in a shard, record verified", FaultKind.BYTES, "verified"),
)


class Bench:
    """The tiny models, and one report for each place that a fault is planted in; each way starts vLLM once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.suite = load_suite(write_suite(root / "suite", prompts=many_prompts(20)))
        self.base = write_base(root / "base")
        self.merged = write_merged(self.base, root / "merged")
        self.trained = view_of(self.merged, self.base, self.suite, root / "view")

    def everything(self) -> dict[str, ParityReport]:
        """Both ways, the two engines starting side by side: most of a start is imports, which use one core."""
        with ThreadPoolExecutor(max_workers=1) as beside:
            careless = beside.submit(self.careless)
            return self.honest() | careless.result()

    def honest(self) -> dict[str, ParityReport]:
        """A server of the merged model, compared with its own trainer and with others."""
        reports = {"verified": _verified(flip_a_bit(self.merged, self.root / "verified"), self.suite)}
        with ThreadPoolExecutor(max_workers=1) as beside:
            views = beside.submit(self._other_views)  # while the engine starts
            with real_server(self.merged, self.root / "honest") as endpoint:
                reports["honest"] = compared(endpoint, self.suite, self.trained, self.merged)
                reports["flipped"] = compared(endpoint, self.suite, self.trained, flip_a_bit(self.merged, self.root / "flipped"))
                for name, (model, view) in views.result().items():
                    reports[name] = compared(endpoint, self.suite, view, model)
        return reports

    def _other_views(self) -> dict[str, tuple[Path, TrainerView]]:
        return {
            name: (model, view_of(model, base, self.suite, self.root / f"view-{name}"))
            for name, (model, base) in _other_trainings(self.base, self.merged, self.root).items()
        }

    def careless(self) -> dict[str, ParityReport]:
        """A server of a copy in which everything beside the weights is wrong."""
        folder = altered(self.merged, self.root / "careless", template=WITHOUT_GENERATION_PROMPT, temperature=0.3, eos_token_id=0)
        with real_server(end_at(folder, "<|endoftext|>"), self.root / "careless-slot", dtype="float16", context=256) as endpoint:
            return {"careless": compared(endpoint, self.suite, self.trained, folder)}


def _other_trainings(base: Path, merged: Path, root: Path) -> dict[str, tuple[Path, Path]]:
    """Merged models that the honest server does not serve, each with the base that it was trained from."""
    served_base = altered(merged, root / "served-base")
    BaseModelRecord(created_at=NOW, source="tiny", folder=str(served_base), files=digest_files(served_base)).write(served_base)
    return {
        "unmerged": (write_merge_record(base, altered(base, root / "unmerged")), base),
        "retrained": (write_merged(base, root / "retrained", seed=9), base),
        # Trained from what the server serves: to this trainer, the server has forgotten the adapter.
        "from_served": (write_merged(served_base, root / "from-served", seed=10), served_base),
        "templated": (write_merge_record(base, altered(merged, root / "templated", template=OTHER_TEMPLATE)), base),
        "swapped": (write_merge_record(base, altered(merged, root / "swapped", words=_OTHER_WORDS)), base),
    }


def flip_a_bit(folder: Path, copy: Path) -> Path:
    """A copy whose weights differ in one bit, its record unchanged."""
    shutil.copytree(folder, copy)
    path = copy / "model.safetensors"
    weights = bytearray(path.read_bytes())
    weights[-1] ^= 1
    path.write_bytes(weights)
    return copy


def _verified(folder: Path, suite: Suite) -> ParityReport:
    """What is found before any server is asked."""
    record = MergedModel.read(folder)
    try:
        verify_files(folder, record.files)
    except RecordError as error:
        return broken_bytes("tiny-1", record.digest, suite.digest, error.what)
    return identity_only("tiny-1", record.digest, suite.digest, weights_of(record.files))
