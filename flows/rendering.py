"""Parity: what training makes of a merged model, compared with what the live server does with it.

The trainer's side needs the model's tokenizer and weights and so runs as a stage of its own, while the server is still starting; the
comparison is `evaluation/parity.py`. A difference blocks: the model that was trained is then not the model that would be served.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.client import Endpoint
from evaluation.parity import check_parity
from evaluation.parity_conversations import Conversation, awkward_texts, conversations_of
from evaluation.parity_records import Dtype, FaultKind, ParityReport, Rendered, Sample, TrainerView
from evaluation.suite import Suite
from evaluation.suite_union import load_suites
from flows.errors import ParityBroken
from serving.start_check import keep_for_starts
from training.errors import DataError
from training.records import BaseModelRecord, FileDigest, MergedModel, verify_files

if TYPE_CHECKING:
    from flows.recipe import Recipe

SAMPLES, GREEDY_TOKENS, _LONGEST_SAMPLE = 12, 8, 128
_WEIGHTS = ".safetensors"

_DO = {
    FaultKind.BYTES: "something changed the model's folder after it was merged: restore it, or run the recipe again",
    FaultKind.ADAPTER_LOST: "look at the merge stage's log: it wrote the base model out again; delete its folder and run again",
    FaultKind.TOKENIZER: "tokenizer.json of the served folder is not the trained one: restore it from the base model",
    FaultKind.GENERATION_PROMPT: "the served chat template ignores add_generation_prompt: restore chat_template.jinja from the base model",
    FaultKind.END_OF_TURN: "compare eos_token in tokenizer_config.json, eos_token_id in generation_config.json, and the end of a turn in "
    "chat_template.jinja with those of the base model",
    FaultKind.TEMPLATE: "compare chat_template.jinja of the served folder with the base model's; look for a --chat-template option",
    FaultKind.STOP_TOKENS: "compare eos_token_id in generation_config.json with the base model's",
    FaultKind.DEFAULTS: "compare generation_config.json with the base model's; look for options that override it in vllm.log",
    FaultKind.CONTEXT: "compare serving.max_model_len with --max-model-len in vllm.log",
    FaultKind.BASE_SERVED: "the server answers as the base model does: look at --model in vllm.log; was an adapter left unmerged?",
    FaultKind.DTYPE: "compare serving.dtype with the number type that vllm.log names",
    FaultKind.WEIGHTS: "look at --model and --quantization in vllm.log; then have the base model served and compared",
    FaultKind.DECODING: "it reads as the trainer does and writes otherwise: look at the attention backend and KV-cache type in vllm.log",
    FaultKind.NOT_MEASURED: "give evaluation.suite prompts that the model's template takes and that are shorter than 128 tokens",
}


def view_of_trainer(
    model_dir: Path, merged: MergedModel, base_dir: Path, base: BaseModelRecord, suite: Suite, longest: int, out: Path, created_at: str
) -> TrainerView:
    """Render every conversation with the merged model's own tokenizer, measure some of them with its weights, and write it all down.

    Args:
        longest: context length in tokens: a conversation that is measured must fit with its answer.

    Raises:
        RecordError: the model's folder is not what its record says.
    """
    from training.chat import prompt_ids, render, template_ids
    from training.reference import continuations, sampling_defaults, special_ids, stop_ids
    from training.tokenizer import load_tokenizer

    verify_files(model_dir, merged.files)
    tokenizer = load_tokenizer(model_dir)
    rendered = [Rendered(name=each.name, ids=_ids(tokenizer, each)) for each in conversations_of(suite)]
    hello = [{"role": "user", "content": "Hello"}]
    answer = [label for label in render(tokenizer, [*hello, {"role": "assistant", "content": "Hi"}]).labels if label >= 0]
    chosen = samples_of(rendered, longest)
    measured = continuations(
        model_dir, base_dir, [each.ids or () for each in chosen], new_tokens=GREEDY_TOKENS, pad_token_id=tokenizer.pad_token_id
    )
    view = TrainerView(
        created_at=created_at,
        model_digest=merged.digest,
        base_digest=base.digest,
        suite_digest=suite.digest,
        conversations=tuple(rendered),
        texts={name: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for name, text in awkward_texts().items()},
        opening=tuple(prompt_ids(tokenizer, hello)[len(template_ids(tokenizer, hello, answer_next=False)) :]),
        end_of_turn=answer[-1],
        stops=stop_ids(model_dir, tokenizer),
        special=special_ids(tokenizer),
        defaults=sampling_defaults(model_dir),
        samples=tuple(Sample(name=each.name, **vars(figures)) for each, figures in zip(chosen, measured, strict=True)),
        weights_sha256=weights_of(merged.files),
        base_weights_sha256=weights_of(base.files),
    )
    view.write(out)
    return view


def samples_of(rendered: Sequence[Rendered], longest: int) -> list[Rendered]:
    """Up to twelve short conversations, spread over all: the suite's prompts come first, and with them what the model was tuned for."""
    most = min(_LONGEST_SAMPLE, longest - GREEDY_TOKENS - 1)
    short = [each for each in rendered if each.ids is not None and 2 <= len(each.ids) <= most]
    prompts = [each for each in short if each.name.startswith("prompt:")]
    spread = prompts[:: max(1, len(prompts) // SAMPLES)][:SAMPLES]
    return [*spread, *(each for each in short if each not in prompts)][:SAMPLES]


def weights_of(files: Sequence[FileDigest]) -> dict[str, str]:
    """Weight file -> sha256."""
    return {file.path: file.sha256 for file in files if file.path.endswith(_WEIGHTS)}


def compare(endpoint: Endpoint, recipe: "Recipe", trained: TrainerView, identity: ParityReport) -> ParityReport:
    """Ask the live server what the trainer's view answers; `identity` says which weights lie in the folder that it serves."""
    return check_parity(
        endpoint,
        load_suites(recipe.evaluation.suites),
        recipe.evaluation,
        trained,
        identity,
        context_tokens=recipe.serving.max_model_len,
        dtype=_dtype(recipe),
        quantized=recipe.serving.quantization != "none",
    )


def keep_for_starts_of(folder: Path, release_id: str, recipe: "Recipe", trained: TrainerView) -> None:
    """Keep what every later start of this release is held against."""
    section = recipe.serving
    conversations = conversations_of(load_suites(recipe.evaluation.suites))
    quantized = section.quantization != "none"
    keep_for_starts(folder, release_id, conversations, trained, section.max_model_len, _dtype(recipe), quantized=quantized)


def _dtype(recipe: "Recipe") -> Dtype:
    # A merge is written in bfloat16, which `auto` takes over.
    return "bfloat16" if recipe.serving.dtype == "auto" else recipe.serving.dtype


def require(report: ParityReport, model_digest: str) -> None:
    """Let a report pass that holds, and is one of this model against its trainer.

    Raises:
        ParityBroken: with every kind of difference, the likeliest cause, and what to do about that.
    """
    if report.model_digest != model_digest or (report.holds and not report.against_trainer):
        raise ParityBroken(
            f"{report.subject}: the parity report is not one of model {model_digest[:12]} against its trainer",
            why="without it nobody knows whether the model that was judged is the one that was trained",
            do="delete the report's folder; the next run compares again",
        )
    if report.holds:
        return
    likely = report.likely or FaultKind.NOT_MEASURED
    differences = "\n".join(f"  {fault.kind}: {fault.subject}: {fault.what}" for fault in _some_of_each(report))
    raise ParityBroken(
        f"{report.subject} is not served as it was trained; most likely: {likely}. {len(report.faults)} differences:\n{differences}",
        why="a model asked in another way than it was trained answers worse, and what was judged would not be what was trained",
        do=_DO[likely],
    )


def _some_of_each(report: ParityReport, most: int = 3) -> Sequence[Any]:
    """A wrong template shows in every conversation; three of a kind are enough to read, the record has them all."""
    kinds = {fault.kind: [each for each in report.faults if each.kind is fault.kind][:most] for fault in report.faults}
    return [fault for faults in kinds.values() for fault in faults]


def _ids(tokenizer: Any, conversation: Conversation) -> tuple[int, ...] | None:
    from training.chat import prompt_ids

    messages = [dict(turn) for turn in conversation.messages]
    if conversation.tools:
        messages[0]["tools"] = list(conversation.tools)
    try:
        return tuple(prompt_ids(tokenizer, messages))
    except DataError:  # the template refuses it, and so must the server
        return None


def in_words(report: ParityReport) -> str:
    """One line for the terminal."""
    if report.figures is None:
        return f"{len(report.weights_sha256)} weight files are those of the record; no trainer's view to compare with"
    figures = report.figures
    return (
        f"{report.compared} conversations alike; Δ log-probability {figures.mean:.3f} of at most {figures.mean_limit:.3f} over "
        f"{figures.tokens} tokens; {figures.greedy_agreed} of {figures.greedy_tokens} greedy tokens; {len(report.stop_tokens)} stop tokens"
    )
