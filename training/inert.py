"""What in a model's folder would run code when it is loaded, or would have files read outside it. Nothing is loaded to find out.

Knows nothing of records and recipes. Next: `base_model.py`, which asks before a model is taken in; `serving/artefact.py`, at each start.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_INDICES = "*.safetensors.index.json"
# Of the model, its tokenizer, its processor, its ways to generate: each may name classes in Python files that come with the model.
_CONFIGS = "*config.json"
_OWN_CODE = ("auto_map", "custom_pipelines")


def pickles(folder: Path) -> list[str]:
    """Files whose reading runs what is in them. Not those in folders below, such as `original/` of some models: nobody loads them."""
    return [f"{path.name} is a pickle" for path in sorted(folder.iterdir()) if path.suffix.lower() in _PICKLES]


def strayed_shards(folder: Path) -> list[str]:
    """Indices that have weights read from where they do not lie: outside the folder, or nowhere."""
    return [f"{path.name} {fault}" for path in sorted(folder.glob(_INDICES)) for fault in _index_faults(path)]


def own_code(folder: Path) -> list[str]:
    """Configurations that name classes of the model's own."""
    found = ((path, _json(path)) for path in sorted(folder.rglob(_CONFIGS)))
    return [
        f"{path.relative_to(folder)} has an `{key}`: the model brings its own Python code"
        for path, config in found
        for key in _OWN_CODE
        if isinstance(config, dict) and key in config
    ]


def _index_faults(path: Path) -> Iterator[str]:
    index = _json(path)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        yield "is no index of weights"
        return
    for name in sorted(set(shards.values())):
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\\" in name or "\0" in name:
            yield f"names {name!r}, which is not in the folder"
        elif place.suffix != ".safetensors":
            yield f"names {name!r}, which is no safetensors file"
        elif not (path.parent / place).is_file():
            yield f"names {name!r}, which is missing"


def _json(path: Path) -> Any:
    """None when it is no JSON: what reads it in earnest says so."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
