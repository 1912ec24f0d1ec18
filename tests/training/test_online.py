"""A reward model puts answers in order, and online learning asks for rewards and moves an adapter, on a real, tiny model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.fakes_training import QUESTIONS, TinyLine, sft_section, write_jsonl
from training.data.config import DataSection
from training.errors import InputError, TrainingError
from training.measure import ValidationPrompt
from training.online import train_online
from training.online_section import OnlineSection, RewardSection
from training.practice.course import CURVES_SUFFIX, Course
from training.prepare import PREFERENCES, prepare_dataset, read_prepared
from training.progress import Progress, Report, silent
from training.records import AdapterArtifact, RewardArtifact
from training.reward_model import HEAD, RankingTrainer, load_reward, train_reward
from training.rewarding import Answered, Rewarding
from training.sft import train_sft

Parent = tuple[Path, AdapterArtifact]
REWARD = RewardSection(learning_rate=1e-2, epochs=4, batch_size=4, held_out_fraction=0.3)
ENDS = (0, 2)  # padding and end of turn of the tiny tokenizer
PROMPTS = [ValidationPrompt(str(number), [{"role": "user", "content": question}]) for number, question in enumerate(QUESTIONS[:8])]


@pytest.fixture(scope="module")
def parent(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> Parent:
    folder = tmp_path_factory.mktemp("parent")
    section = sft_section(epochs=1, learning_rate=3e-3)
    return folder, train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, folder, silent)


def teach(tiny: TinyLine, parent: Parent, out: Path, report: Report = silent, **changes: Any) -> RewardArtifact:
    section = RewardSection.model_validate({**REWARD.model_dump(), **changes})
    return train_reward(tiny.model, sft_section(), section, tiny.base, tiny.dataset_dir, tiny.dataset, *parent, out, report)


def lowness(answers: Sequence[Answered]) -> list[float | None]:
    """An answer is worth its share of tokens below 100: a quarter of all, before anything is learned."""
    return [sum(token < 100 for token in answer.answer_ids) / len(answer.answer_ids) for answer in answers]


def learn(tiny: TinyLine, parent: Parent, out: Path, rewards: Any = lowness, report: Report = silent, **changes: Any) -> AdapterArtifact:
    usual = {
        "prompts": tiny.root,
        "learning_rate": 1e-1,
        "max_new_tokens": 4,
        "answers_per_prompt": 16,
        "batch_size": 4,
        "beta": 0.0,
    }
    online, rewarding = OnlineSection.model_validate(usual | changes), Rewarding(rewards, "r" * 64)
    section = sft_section(checkpoint_every_steps=3)
    return train_online(tiny.model, section, online, tiny.base, PROMPTS, rewarding, *parent, out, report)


@dataclass(frozen=True)
class Learned:
    """A whole run of eight steps, and what was asked of the reward."""

    method: str
    folder: Path
    artifact: AdapterArtifact
    asked: list[Answered]


@pytest.fixture(scope="module", params=["grpo", "rloo"])
def learned(request: pytest.FixtureRequest, tiny: TinyLine, parent: Parent, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    asked: list[Answered] = []

    def listening(answers: Sequence[Answered]) -> list[float | None]:
        asked.extend(answers)
        return lowness(answers)

    folder = tmp_path_factory.mktemp(request.param)
    return Learned(request.param, folder, learn(tiny, parent, folder, listening, method=request.param, epochs=4), asked)


@pytest.fixture(scope="module")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyLine, Parent]:
    """A model whose adapter can make an answer certain: the other tiny one's head, which is frozen, prefers no token to another."""
    line = TinyLine(tmp_path_factory.mktemp("sharp"), sharpness=16.0)
    section, folder = sft_section(epochs=1, learning_rate=3e-3), line.root / "parent"
    return line, (folder, train_sft(line.model, section, line.base, line.dataset_dir, line.dataset, folder, silent))


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_mean_reward_of_five_steps_rises_by_a_quarter_within_forty(sharp: tuple[TinyLine, Parent], tmp_path: Path, method: str) -> None:
    means: list[float] = []

    def listening(answers: Sequence[Answered]) -> list[float | None]:
        worth = [float(each or 0) for each in lowness(answers)]
        means.append(sum(worth) / len(worth))
        return [*worth]

    artifact = learn(sharp[0], sharp[1], tmp_path, listening, method=method, epochs=20, learning_rate=1e-2)

    assert artifact.steps == len(means) == 40
    assert sum(means[-5:]) / 5 > sum(means[:5]) / 5 + 0.25


def test_answers_that_end_at_their_limit_are_counted_and_said(learned: Learned) -> None:
    """Few of four tokens are an end by chance; TRL takes padding for one, too."""
    cut = [warning for warning in learned.artifact.course.warnings if "cut at `online.max_new_tokens`" in warning]

    ended = sum(answer.answer_ids[-1] in ENDS for answer in learned.asked) / len(learned.asked)
    assert float(cut[0].split("%")[0]) == pytest.approx(100 * (1 - ended), abs=0.1)


def stopped_at(step: int) -> Report:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == step:
            raise KeyboardInterrupt

    return press_ctrl_c


def test_a_reward_model_puts_pairs_in_order_that_it_has_not_seen_and_reads_back_as_it_was(
    tiny: TinyLine, parent: Parent, tmp_path: Path
) -> None:
    artifact = teach(tiny, parent, tmp_path)

    loaded = load_reward(tiny.model, sft_section(), tiny.base, tmp_path, artifact)
    pairs = read_prepared(tiny.dataset_dir / PREFERENCES)
    chosen, rejected = (loaded.rewards([pair["prompt_ids"] + pair[key] for pair in pairs]) for key in ("chosen_ids", "rejected_ids"))
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (parent[0], tmp_path))
    assert [file.path for file in artifact.files] == ["adapter_config.json", "adapter_model.safetensors", HEAD]
    assert artifact.last_loss < artifact.first_loss
    assert (artifact.held_out_accuracy, artifact.held_out_pairs > 0) == (1.0, True)
    assert all(better > worse for better, worse in zip(chosen, rejected, strict=True))
    assert all(not before[name].equal(after[name]) for name in before)


def test_a_reward_model_draws_its_margins_and_records_its_course(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    warned = parent[1].model_copy(update={"course": Course(warnings=("its answers are cut",))})

    course = teach(tiny, (parent[0], warned), tmp_path / "out", epochs=2).course

    page = (tmp_path / f"out{CURVES_SUFFIX}").read_text()
    assert all(title in page for title in ("Loss", "Margin", "Speed", "its answers are cut"))
    assert (course.warnings[0], course.rows_per_pass, course.kept_step > 0) == ("its answers are cut", 4, True)
    assert course.warnings[1].startswith("reward.learning_rate 0.01 is above the range")
    assert course.conditions is not None


def test_a_reward_model_whose_batch_does_not_fit_is_taught_with_half_of_it_and_the_same_steps(
    tiny: TinyLine, parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, honest = teach(tiny, parent, tmp_path / "whole", epochs=1), RankingTrainer.compute_loss

    def compute_loss(self: RankingTrainer, model: Any, inputs: dict[str, Any], *others: Any, **named: Any) -> Any:
        if len(inputs["input_ids"]) > 4:
            raise MemoryError
        return honest(self, model, inputs, *others, **named)

    monkeypatch.setattr(RankingTrainer, "compute_loss", compute_loss)
    halved = teach(tiny, parent, tmp_path / "halved", epochs=1)

    assert (halved.steps, halved.held_out_accuracy) == (whole.steps, whole.held_out_accuracy)
    assert halved.first_loss == pytest.approx(whole.first_loss, rel=0.02)
    assert halved.course.out_of_memory == ("memory ran out with 4 rows in a pass: went on with 2 rows and 2 passes in a step",)


def test_a_reward_model_that_was_stopped_ends_as_the_very_same(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    whole = teach(tiny, parent, tmp_path / "whole", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        teach(tiny, parent, tmp_path / "stopped", stopped_at(4), epochs=2)
    heard: list[Progress] = []

    resumed = teach(tiny, parent, tmp_path / "stopped", heard.append, epochs=2)

    assert heard[0].done == 3
    assert resumed.digest == whole.digest


def test_a_reward_model_that_does_not_tell_answers_apart_is_refused(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    """Which of two answers is preferred is tossed up by the number of the question: no model can tell."""
    good, bad = "See a doctor today.", "Wait and see."
    rows = [
        {"prompt": question, "chosen": (good, bad)[number % 2], "rejected": (bad, good)[number % 2]}
        for number, question in enumerate(QUESTIONS[:12])
    ]
    path = write_jsonl(tmp_path / "preferences.jsonl", rows)
    data = DataSection.model_validate({**tiny.data.model_dump(), "preferences": [{"path": path}], "duplicates": {"near": False}})
    dataset = prepare_dataset(tiny.model, data, tiny.base, tmp_path / "rows", silent)
    section = REWARD.model_copy(update={"min_accuracy": 1.0, "epochs": 0.5})

    with pytest.raises(TrainingError, match=r"held-back pairs in order, `reward\.min_accuracy` is 100%"):
        train_reward(tiny.model, sft_section(), section, tiny.base, tmp_path / "rows", dataset, *parent, tmp_path / "out", silent)


def test_the_whole_adapter_moves_and_nothing_else_is_written(learned: Learned, parent: Parent) -> None:
    artifact = learned.artifact

    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (parent[0], learned.folder))
    assert artifact.first_reward is not None
    assert artifact.last_reward is not None
    assert (artifact.stage, artifact.parent_digest, artifact.steps) == ("online", parent[1].digest, 8)
    assert before.keys() == after.keys()
    assert all(not before[name].equal(after[name]) for name in before)


def test_each_step_asks_for_the_rewards_of_a_groups_answers_to_each_prompt(learned: Learned) -> None:
    counts = Counter(answer.prompt_id for answer in learned.asked)

    assert counts == {prompt.id: 4 * 16 for prompt in PROMPTS}  # four epochs, sixteen answers in each
    assert all(1 <= len(answer.answer_ids) <= 4 for answer in learned.asked)


def test_a_run_draws_its_rewards_and_records_its_course(learned: Learned) -> None:
    page, course = learned.folder.with_name(f"{learned.folder.name}{CURVES_SUFFIX}").read_text(), learned.artifact.course

    assert all(title in page for title in ("Loss", "Reward", "Speed"))
    assert (course.rows_per_pass, course.kept_step) == (4 * 16, 8)
    assert course.conditions is not None


def test_a_stopped_run_gives_the_same_answers_and_ends_with_the_very_same_adapter(
    learned: Learned, tiny: TinyLine, parent: Parent, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn(tiny, parent, tmp_path, report=stopped_at(7), method=learned.method, epochs=4)
    heard: list[Progress] = []
    assert not list(tmp_path.rglob("README.md"))  # a checkpoint is not published

    resumed = learn(tiny, parent, tmp_path, report=heard.append, method=learned.method, epochs=4)

    assert heard[0].done == 6
    assert resumed.digest == learned.artifact.digest


def test_a_reward_that_never_differs_is_refused(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="in 1 steps all answers to a prompt got the same reward"):
        learn(tiny, parent, tmp_path, lambda answers: [1.0] * len(answers), batch_size=8)


def test_fewer_prompts_than_a_step_takes_are_refused(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`online\.prompts` has 8 prompts, and a step takes 16"):
        learn(tiny, parent, tmp_path, batch_size=16)
