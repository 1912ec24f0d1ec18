"""Longer contexts: what a recipe's `model.rope_scaling` changes in the base model's config.json.

The merged model carries the same changes, so that it is served as it was trained. Next: `builders.py`.
"""

import json
from pathlib import Path
from typing import Any

from training.config import ModelSection


def config_changes(base: Path, model: ModelSection) -> dict[str, Any]:
    """Keys of config.json and their new values; empty when the recipe stretches nothing."""
    if model.rope_scaling is None:
        return {}
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    known = config.get("rope_parameters") or {}
    reads = int(config["max_position_embeddings"])
    stretched = {
        "rope_type": model.rope_scaling.type,
        "factor": model.rope_scaling.factor,
        "rope_theta": known.get("rope_theta", config.get("rope_theta", 10_000.0)),
        "original_max_position_embeddings": reads,
    }
    return {"rope_parameters": stretched, "max_position_embeddings": int(reads * model.rope_scaling.factor)}
