"""`tunegate plan` and `tunegate validate`: what a recipe will do and need, and whether its files are all there, before anything runs.

Arithmetic and reading only; the arithmetic is `training/memory.py`. Knows nothing of torch.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.errors import SuiteError
from evaluation.lm_eval_tasks import choose_tasks
from evaluation.questioning import suite_faults
from evaluation.rule_testing import check_examples
from evaluation.rules import rules_for
from evaluation.suite import Suite, load_suite
from evaluation.suite_union import load_suites
from flows.errors import RecipeError
from flows.gate_power import needs_of
from flows.recipe import Recipe
from flows.rewards import prompt_faults
from flows.stage_process import judged_by, suite_prompts
from training.data.read_record import Record
from training.data.report_fixes import SMALL_DATA_ROWS
from training.data.sources import SourceSection, open_source, size_bytes
from training.devices import shared_out
from training.errors import DataError, ModelError
from training.memory import TrainingPlan, plan_training
from training.practice.rates import odd_rates
from training.preference_section import PreferenceSection
from training.served import require_servable
from training.shapes import ModelShape, shape_of

_GB = 1e9
_PREVIEW_ROWS = 200
_LARGEST_ON_CPU = 3e9  # parameters; a plan of a larger model is for a GPU, wherever it is made
# English text in the usual vocabularies; only for an estimate, the manifest has the true count.
_CHARACTERS_PER_TOKEN = 4


class Resolved(BaseModel):
    """One value the recipe did not spell out, and why it is what it is."""

    model_config = ConfigDict(frozen=True)

    key: str
    value: str
    because: str


class Plan(BaseModel):
    """Everything `tunegate plan` prints."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    recipe_digest: str
    base: str
    rows: int | None = Field(description="rows in the recipe's files, before any is dropped; null when a file is not there")
    resolved: tuple[Resolved, ...]
    warnings: tuple[str, ...] = Field(description="what is allowed and unusual, a sentence each")
    training: TrainingPlan
    memory_of: str = Field(description="whose memory training is planned in")
    serving_bytes: int = Field(description="merged weights and the keys and values of max_num_seqs full-length requests")


def make_plan(recipe: Recipe) -> Plan:
    """Work out the plan of a recipe; needs neither weights nor data, and says which figures are missing for want of them.

    Raises:
        ModelError: the base model's sizes are not known, or the recipe asks for layers it does not have.
    """
    shape = shape_of(recipe.model.base)
    rows, characters = _count(recipe.data.sft)
    pairs, _ = _count(recipe.data.preferences)
    train_rows = None if rows is None else round(rows * (1 - recipe.data.held_back_share))
    per_row = None if not rows else max(1, characters // rows // _CHARACTERS_PER_TOKEN)
    gpu = _has_gpu() or shape.parameters() > _LARGEST_ON_CPU  # nobody trains a larger one without
    held_back = recipe.preference.held_out_fraction if recipe.preference else 0.0
    learned = None if pairs is None else round(pairs * (1 - held_back))
    known = {"rows": train_rows, "pairs": learned, "tokens_per_row": per_row}
    sharing = recipe.devices.processes if recipe.devices.shard else 1
    training = plan_training(shape, recipe.model, recipe.sft, recipe.preference, **known, gpu=gpu, sharing=sharing)
    # Keys and values in 16 bits for every seat and token.
    seats = recipe.serving.max_num_seqs * recipe.serving.max_model_len
    kv_bytes = seats * 2 * 2 * shape.layers * shape.key_heads * shape.head_dim
    return Plan(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        base=recipe.model.base,
        rows=rows,
        resolved=_resolved(recipe, shape, rows),
        warnings=odd_rates(recipe.sft, recipe.preference, recipe.reward, recipe.online),
        training=training,
        memory_of="one GPU" if gpu else "this machine, on CPU",
        serving_bytes=2 * shape.parameters() + kv_bytes,
    )


def show_plan(console: Console, plan: Plan) -> None:
    """The plan for people."""
    training = plan.training
    console.print(f"[bold]{plan.recipe}[/] on {escape(plan.base)} (recipe {plan.recipe_digest[:12]})\n", highlight=False)
    table = Table("what", "how much", "why", box=None, pad_edge=False)
    for value in plan.resolved:
        table.add_row(value.key, escape(value.value), escape(value.because))
    share = training.trainable_parameters / training.parameters
    table.add_row("trainable parameters", f"{training.trainable_parameters:,}", f"{share:.2%} of {training.parameters:,}")
    rows = "no data file here yet" if plan.rows is None else f"{plan.rows:,} rows before cleaning, {training.rows_per_step} per step"
    table.add_row("SFT steps", _or_unknown(training.steps), rows)
    if training.preference_steps is not None:
        table.add_row("preference steps", f"{training.preference_steps:,}", "after SFT")
    table.add_row("SFT tokens", _or_unknown(training.tokens), f"all epochs, at {_CHARACTERS_PER_TOKEN} characters per token")
    for part, size in training.memory_bytes.items():
        table.add_row(f"memory: {part}", f"{size / _GB:.2f} GB", f"{plan.memory_of}, full-length rows")
    table.add_row("memory: all of training", f"{training.total_memory_bytes / _GB:.2f} GB", "the sum")
    table.add_row(
        "memory: serving", f"{plan.serving_bytes / _GB:.2f} GB", "merged weights and the KV cache; twice that while two slots run"
    )
    table.add_row("disk", f"{training.disk_bytes / _GB:.2f} GB", "base, both merges while they are compared, checkpoints")
    table.add_row("vLLM can serve it", "yes" if training.servable else "[red]no[/]", escape(training.servable_because))
    console.print(table)
    for warning in plan.warnings:
        console.print(f"\n[yellow]{escape(warning)}[/]", highlight=False)


def check_files(recipe: Recipe) -> list[str]:
    """One line for each thing that is in order.

    Raises:
        RecipeError: with everything that is not: data files, suites, rules and their own examples.
    """
    fine: list[str] = []
    problems: list[str] = []
    for source in (*recipe.data.sft, *recipe.data.preferences):
        try:
            size = size_bytes(source)
        except DataError as error:
            problems.append(error.what)
            continue
        fine.append(source.label if size is None else f"{source.label}: {size:,} bytes")
    online = [recipe.online.prompts] if recipe.online else []
    for folder in (*recipe.evaluation.suites, recipe.merge.validation_suite, *online):
        try:
            suite = load_suite(folder)
        except SuiteError as error:
            problems += error.problems
            continue
        problems += check_examples(suite.rules)
        problems += _gate_faults(recipe, suite) + suite_faults(suite, recipe.evaluation) if folder == recipe.evaluation.suite else []
        ruled = sum(bool(rules_for(suite.rules, prompt)) for prompt in suite.prompts)
        fine.append(
            f"{suite.name}: {len(suite.prompts)} prompts, {ruled} of them under a rule; {len(suite.rules.rules)} rules keep their examples"
        )
    problems += _servable_faults(recipe)
    problems += _task_faults(recipe) or _online_faults(recipe, problems)
    if len(recipe.evaluation.suites) > 1 and not problems:
        try:
            fine.append(f"judged together as {load_suites(recipe.evaluation.suites).name}")
        except SuiteError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    return fine


def _servable_faults(recipe: Recipe) -> list[str]:
    """That vLLM could not serve the outcome, where the base model lies on this disk."""
    base = Path(recipe.model.base)
    try:
        if recipe.purpose == "production" and (base / "config.json").is_file():
            require_servable(base, recipe.sft)
    except ModelError as error:
        return [error.what]
    return []


def _task_faults(recipe: Recipe) -> list[str]:
    try:
        if recipe.evaluation.forgetting is not None:
            choose_tasks(recipe.evaluation.forgetting)
    except SuiteError as error:
        return list(error.problems)
    return []


def _online_faults(recipe: Recipe, problems: Sequence[str]) -> list[str]:
    """What is wrong with the prompts of online learning; nothing is said while a suite cannot be read."""
    if recipe.online is None or problems:
        return []
    judged = suite_prompts([load_suite(folder) for folder in judged_by(recipe)])
    return prompt_faults(load_suite(recipe.online.prompts), judged, by_rules=recipe.online.reward == "rules")


def _gate_faults(recipe: Recipe, suite: Suite) -> list[str]:
    """Conditions that no candidate could pass on this suite, so that it is said before the training and not after it."""
    return [f"gate: {need.condition}: {need.sentence}" for need in needs_of(suite, recipe.gate) if need.impossible]


def _resolved(recipe: Recipe, shape: ModelShape, rows: int | None) -> tuple[Resolved, ...]:
    gpu = _has_gpu()
    where = "an NVIDIA driver is here" if gpu else "no NVIDIA driver is here"
    optimizer = recipe.sft.optimizer
    if optimizer == "auto":
        optimizer = "paged_adamw_8bit" if gpu else "adamw_torch"
    quantization = recipe.sft.quantization
    return (
        Resolved(key="device", value="cuda" if gpu else f"cpu, {len(os.sched_getaffinity(0))} cores", because=where),
        Resolved(
            key="optimizer",
            value=optimizer,
            because="paged 8-bit AdamW on a GPU, plain AdamW on a CPU" if recipe.sft.optimizer == "auto" else "the recipe",
        ),
        Resolved(
            key="base weights",
            value=quantization.type if quantization else "bf16",
            because=f"method {recipe.sft.method}" + (", constants quantised again" if quantization and quantization.double_quant else ""),
        ),
        Resolved(
            key="rows per step",
            value=str(recipe.sft.batch_size * recipe.sft.gradient_accumulation),
            because="batch_size × gradient_accumulation",
        ),
        _devices(recipe),
        Resolved(
            key="longest row",
            value=f"{recipe.model.max_length} tokens",
            because=f"the model reads {shape.context}, it is served with {recipe.serving.max_model_len}",
        ),
        _held_back(recipe, rows),
        *_rewarded(recipe),
        Resolved(
            key="preference stage",
            value=recipe.preference.in_words if recipe.preference else "none",
            because=_held_to(recipe.preference) if recipe.preference else "no data.preferences",
        ),
    )


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


def _devices(recipe: Recipe) -> Resolved:
    processes = recipe.devices.processes
    if processes == 1:
        return Resolved(key="processes", value="1", because="devices.processes; torchrun starts more of them")
    rows, passes = shared_out(recipe.sft.batch_size, recipe.sft.gradient_accumulation, processes)
    held = f"the weights shared out (FSDP), each with 1/{processes} of every block" if recipe.devices.shard else "each with the whole model"
    why = f"data-parallel{'' if recipe.devices.shard else ' (DDP)'}, {held} and {rows} × {passes} rows of a step"
    return Resolved(key="processes", value=str(processes), because=why)


def _rewarded(recipe: Recipe) -> list[Resolved]:
    found = []
    if (reward := recipe.reward) is not None:
        measured = f"measured on {reward.held_out_fraction:.3g} of the pairs, refused below {reward.min_accuracy:.0%} in order"
        found.append(Resolved(key="reward model", value=f"{reward.epochs:g} epochs of the pairs", because=measured))
    if (online := recipe.online) is not None:
        each = f"each step answers {online.prompts_per_step} prompts of {online.prompts.name}, {online.max_new_tokens} tokens at most"
        found.append(Resolved(key="online stage", value=online.in_words, because=each))
    return found


def _held_to(preference: PreferenceSection) -> str:
    if not preference.way.has_reference:
        return "data.preferences; needs no reference"
    reference = "a frozen copy of the SFT adapter" if preference.reference == "sft" else "the base model without an adapter"
    return f"data.preferences; held to {reference}"


def _held_back(recipe: Recipe, rows: int | None) -> Resolved:
    data = recipe.data
    about = "" if rows is None else f", about {round(rows * data.held_back_share):,} rows"
    if data.folds:
        why = f"data.folds: by hash of the question; a run for each data.fold from 0 to {data.folds - 1} validates on every row once"
        return Resolved(key="held back", value=f"fold {data.fold} of {data.folds}{about}", because=why)
    why = "data.validation_fraction: by hash of the question"
    if rows is not None and rows < SMALL_DATA_ROWS:
        why += f"; with fewer than {SMALL_DATA_ROWS:,} rows, `data.folds: 5` would validate on every row once"
    return Resolved(key="held back", value=f"{data.validation_fraction:.3g} of the rows{about}", because=why)


def _count(sources: Sequence[SourceSection]) -> tuple[int | None, int]:
    """Rows of all sources, and their characters estimated from the first; None when one of them does not lie on this disk."""
    rows = characters = 0
    for section in sources:
        if not isinstance(section.path, Path) or not section.path.exists():
            return None, 0
        count, size = _count_one(section)
        rows, characters = rows + count, characters + size
    return rows, characters


def _count_one(section: SourceSection) -> tuple[int, int]:
    count = seen = 0
    for count, row in enumerate(open_source(section), start=1):
        if count <= _PREVIEW_ROWS and isinstance(row, Record):
            seen += sum(len(text) for text in row.values.values() if isinstance(text, str)) or len(str(row.values))
    return count, seen * count // max(1, min(count, _PREVIEW_ROWS))


def _or_unknown(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
