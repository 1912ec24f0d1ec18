"""What every section of a recipe shares: frozen, no unknown keys, one digest.

Knows nothing of any section. Next: `config.py`.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from training.records import digest_of


class Section(BaseModel):
    """A frozen part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def digest(self) -> str:
        """Hex sha256 of every value; a path counts by its name, so that moving the recipe changes nothing."""
        return digest_of(_without_folders(self.model_dump(mode="python")))


def _without_folders(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return value
