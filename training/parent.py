"""The adapter that a later stage goes on from: whether it belongs to this base model, put on it, and what the next record takes over.

Knows nothing of how it is trained further. Next: `preference.py`, `online.py`, `reward_model.py`; `merge.py`.
"""

from pathlib import Path
from typing import Any

from training.adapters import load_adapter
from training.builders import load_base, settle
from training.config import ModelSection, SftSection
from training.errors import InputError
from training.practice.seeds import be_deterministic
from training.records import AdapterArtifact, BaseModelRecord, verify_files


def require_trained_on(base: BaseModelRecord, adapter: AdapterArtifact) -> None:
    """Raises: InputError when the adapter was trained on another base model."""
    if adapter.base_digest != base.digest:
        raise InputError(
            f"the adapter was trained on base model {adapter.base_digest[:12]}, this is {base.digest[:12]}",
            why="its numbers mean nothing on other weights",
            do="use the base model it was trained on, or train the adapter again on this one",
        )


def load_parent(
    model: ModelSection, sft: SftSection, base: BaseModelRecord, folder: Path, parent: AdapterArtifact, *, shard: bool = False
) -> Any:
    """The adapter in `folder` on its base model, ready to be trained further; every generator is seeded.

    Several processes may `shard` the base model out among them.

    Raises:
        InputError: it was trained on another base model.
        RecordError: its files are not those of its record.
    """
    require_trained_on(base, parent)
    verify_files(folder, parent.files)
    settle(sft.seed)
    be_deterministic(sft.deterministic)
    trusted = model.trust_remote_code
    weights = load_base(Path(base.folder), sft.quantization, trust_remote_code=trusted, config_changes=parent.config_changes, shard=shard)
    return load_adapter(weights, folder, trainable=True, shard=shard)


def taken_over(parent: AdapterArtifact) -> dict[str, Any]:
    """What the record of a stage says as its parent's did, and which parent that was."""
    return {
        "parent_digest": parent.digest,
        "base_digest": parent.base_digest,
        "config_changes": parent.config_changes,
        "quantization": parent.quantization,
        "double_quant": parent.double_quant,
    }
