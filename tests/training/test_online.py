"""A reward model puts answers in order, and online learning moves an adapter towards what is rewarded, on a real, tiny model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.fakes_training import QUESTIONS, TinyLine, sft_section
from training.errors import InputError
from training.measure import ValidationPrompt
from training.online import train_online
from training.online_section import OnlineSection, RewardSection
from training.prepare import PREFERENCES, read_prepared
from training.progress import Report, silent
from training.records import AdapterArtifact, RewardArtifact
from training.reward_model import HEAD, load_reward, train_reward
from training.rewarding import Answered, Rewarding
from training.sft import train_sft

Parent = tuple[Path, AdapterArtifact]
REWARD = RewardSection(learning_rate=1e-2, epochs=4, batch_size=4, held_out_fraction=0.3)
PROMPTS = [ValidationPrompt(str(number), [{"role": "user", "content": question}]) for number, question in enumerate(QUESTIONS[:8])]


@pytest.fixture(scope="module")
def parent(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> Parent:
    folder = tmp_path_factory.mktemp("parent")
    section = sft_section(epochs=1, learning_rate=3e-3)
    return folder, train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, folder, silent)


def teach(tiny: TinyLine, parent: Parent, out: Path, report: Report = silent, **changes: Any) -> RewardArtifact:
    section = RewardSection.model_validate({**REWARD.model_dump(), **changes})
    return train_reward(tiny.model, sft_section(), section, tiny.base, tiny.dataset_dir, tiny.dataset, *parent, out, report)


def evenness(answers: Sequence[Answered]) -> list[float | None]:
    """An answer is worth its share of tokens with an even number: half of them, before anything is learned."""
    return [sum(token % 2 == 0 for token in answer.answer_ids) / len(answer.answer_ids) for answer in answers]


def learn(tiny: TinyLine, parent: Parent, out: Path, rewards: Any = evenness, report: Report = silent, **changes: Any) -> AdapterArtifact:
    values = {"prompts": tiny.root, "learning_rate": 3e-2, "max_new_tokens": 4, "answers_per_prompt": 8, "batch_size": 4, **changes}
    online, rewarding = OnlineSection.model_validate(values), Rewarding(rewards, "r" * 64)
    section = sft_section(checkpoint_every_steps=3)
    return train_online(tiny.model, section, online, tiny.base, PROMPTS, rewarding, *parent, out, report)


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


def test_fewer_prompts_than_a_step_takes_are_refused(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`online\.prompts` has 8 prompts, and a step takes 16"):
        learn(tiny, parent, tmp_path, batch_size=16)
