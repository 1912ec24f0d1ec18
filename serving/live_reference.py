"""What live traffic of a release is held against: the suite that judged it, and what it answered then. Written by the line, one file each.

Next: `live_check.py`, which reads it.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.suite import Suite
from training.atomic import write_text

_FILE = "reference.json"


class LiveReference(BaseModel):
    """Suites with their rules, the recipe's own first, and one model's answers to that one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suites: tuple[Suite, ...]
    answers: tuple[str, ...]


def write_reference(folder: Path, release_id: str, reference: LiveReference) -> None:
    """Keep it for the server; what was there is replaced."""
    (folder / release_id).mkdir(parents=True, exist_ok=True)
    write_text(folder / release_id / _FILE, reference.model_dump_json(), mode=0o600)


def read_reference(folder: Path, release_id: str) -> LiveReference | None:
    """What a release is held against; None where it was never judged here, or by something that is no longer understood."""
    try:
        return LiveReference.model_validate_json((folder / release_id / _FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None
