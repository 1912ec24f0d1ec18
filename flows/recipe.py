"""The recipe: every stage's section put together, read from YAML with all its faults in one go.

Paths are relative to the recipe's own file, so a recipe and its data travel as one folder. A recipe is frozen and hashed; machines,
ports and secrets are settings (`serving/settings.py`) and never part of it. Next: `pipeline.py`, which runs it.
"""

from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from evaluation.config import EvaluationSection, GateSection
from evaluation.documents import Document, explain, read_yaml
from flows.approval_section import ApprovalSection
from flows.errors import RecipeError
from serving.config import ServingSection
from training.config import DataSection, MergeSection, ModelSection, SftSection
from training.data.read_secrets import masked
from training.devices import ALONE, DevicesSection, unequal_shares
from training.online_section import OnlineSection, RewardSection
from training.preference_section import PreferenceSection, lora_misfits
from training.sections import Section


class Recipe(Section):
    """One way to make, judge and serve a model."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="names the run folder; lower-case letters, digits, dash, underscore"
    )
    purpose: Literal["production", "experiment"] = Field(
        default="production", description="an experiment may make what vLLM cannot serve; it is never submitted for approval"
    )
    model: ModelSection
    data: DataSection
    sft: SftSection
    devices: DevicesSection = Field(default=ALONE, description="how many processes train together, and how")
    preference: PreferenceSection | None = Field(default=None, description="preference tuning after SFT; needs data.preferences")
    reward: RewardSection | None = Field(default=None, description="a reward model after that; needs pairs in data.preferences")
    online: OnlineSection | None = Field(default=None, description="learning from rewards of the model's own answers, before the merge")
    merge: MergeSection
    evaluation: EvaluationSection
    gate: GateSection
    approval: ApprovalSection = Field(default=ApprovalSection(), description="who has to approve what passed the gate")
    serving: ServingSection

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = []
        if self.data.preferences and self.preference is None and self.reward is None:
            faults.append("data.preferences is given, but there is no `preference` section to train on it, and no `reward`")
        if self.preference is not None and not self.data.preferences:
            faults.append("there is a `preference` section, but data.preferences names no file")
        if self.purpose == "production" and not self.sft.tuning.mergeable:
            faults.append(
                f"sft.method {self.sft.method} cannot be folded into weights, so vLLM could not serve the outcome: "
                "set purpose: experiment to train it all the same, or choose another method"
            )
        for section in (self.sft, self.preference):
            if section is not None and (fault := unequal_shares(section.batch_size, section.gradient_accumulation, self.devices.processes)):
                faults.append(f"devices.processes: {fault}")
        faults += self.devices.misfits(self.sft)
        if self.preference is not None:
            faults += self.preference.misfits(self.sft, self.devices.processes)
        faults += self._reward_faults() + self._online_faults()
        if self.serving.max_model_len < self.model.max_length:
            faults.append(
                f"serving.max_model_len ({self.serving.max_model_len}) is below model.max_length ({self.model.max_length}): "
                "the model would be trained on rows longer than it is served with"
            )
        for source in (*self.data.sft, *self.data.preferences):
            address = source.database or (source.path if isinstance(source.path, str) else "")
            if masked(address) != address:
                faults.append(
                    f"{source.label}: the address holds a secret, which would be recorded; write ${{NAME}} and set it in the environment"
                )
        judge = self.evaluation.judge
        if self.gate.judge_win_rate is not None and (judge is None or judge.style != "verdict"):
            faults.append(
                f"gate.judge_win_rate needs a judge that compares; evaluation.judge is {'absent' if judge is None else judge.style}: "
                "name a general model there, with style: verdict"
            )
        if self.serving.change == "recreate" and self.gate.compares_speed:
            faults.append(
                "serving.change: recreate runs one engine at a time, but the gate compares a latency or a rate, which are measured on both "
                "in turn: bound it by gate.must instead, or serve side by side"
            )
        if self.merge.validation_suite in self.evaluation.suites:
            faults.append(
                "merge.validation_suite is evaluation.suite: a merge chosen on the gate's own prompts would be judged on them again"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _reward_faults(self) -> list[str]:
        if self.reward is None:
            return []
        faults = lora_misfits("a reward model", self.sft)
        if not self.data.preferences:
            faults.append("there is a `reward` section, but data.preferences names no file")
        if self.preference is not None and self.preference.way.rows == "labelled":
            faults.append("a reward model learns from pairs, and with preference.method kto labelled answers may be among data.preferences")
        if self.purpose == "production" and (self.online is None or self.online.reward != "model"):
            faults.append("nothing uses the reward model: set online.reward: model, or purpose: experiment to train it all the same")
        return faults

    def _online_faults(self) -> list[str]:
        if self.online is None:
            return []
        faults = self.online.misfits(self.sft)
        if self.online.reward == "model" and self.reward is None:
            faults.append("online.reward is model, but there is no `reward` section to train one")
        if self.online.prompts in (*self.evaluation.suites, self.merge.validation_suite):
            faults.append("online.prompts is a suite that the model is judged by: it would be judged on what it was rewarded for")
        return faults


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: every fault at once, each with file, line and key.
    """
    problems: list[str] = []
    document = read_yaml(path, problems)
    if document is None:
        raise RecipeError(problems)
    if not isinstance(document.value, dict):
        raise RecipeError([f"{path}:1: a recipe is a mapping of sections, this is a {type(document.value).__name__}"])
    recipe = _validate(document, problems)
    if recipe is None or problems:
        raise RecipeError(problems)
    return recipe


def _validate(document: Document, problems: list[str]) -> Recipe | None:
    folder = document.path.absolute().parent
    values = _resolved(Recipe, document.value, folder)
    model = values.get("model")
    if isinstance(model, dict) and str(model.get("base", "")).startswith((".", "~")):
        model["base"] = str((folder / Path(model["base"]).expanduser()).resolve())
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems += explain(error, Recipe, document)
        return None


def _resolved(kind: Any, value: Any, folder: Path) -> Any:
    """`value` with every string that the schema types as a Path made absolute against `folder`."""
    kinds = (kind, *_arguments(kind))
    if isinstance(value, str) and Path in kinds and "://" not in value:
        return str((folder / Path(value).expanduser()).resolve())
    if isinstance(value, list):
        return [_resolved(_item_kind(kinds), item, folder) for item in value]
    section = next((each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)), None)
    if isinstance(value, dict) and section is not None:
        fields = section.model_fields
        return {key: _resolved(fields[key].annotation, item, folder) if key in fields else item for key, item in value.items()}
    return value


def _arguments(kind: Any) -> tuple[Any, ...]:
    return tuple(inner for argument in get_args(kind) for inner in (argument, *_arguments(argument)))


def _item_kind(kinds: tuple[Any, ...]) -> Any:
    """The type of the items of whichever of `kinds` is a sequence."""
    return next((get_args(kind)[0] for kind in kinds if getattr(kind, "__origin__", None) in (tuple, list)), None)
