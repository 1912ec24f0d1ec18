"""The flow that keeps the disk within its budget, by the policy of `tunegate prune`. Next: `pruning.py`."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.display import Display, make_console
from flows.pruning import prune, taken_bytes
from flows.serving_control import open_registry
from serving.settings import load_settings

_GB = 1e9


@flow(name="make-room", persist_result=False)
def make_room(keep: Annotated[int, Field(ge=1, le=1_000)] = 2, budget_gb: Annotated[float | None, Field(gt=0)] = None) -> float:
    """Remove folders of old runs that nothing needs: never a champion, the one before it, or what waits. Returns the GB that it freed.

    Args:
        keep: how many of the newest folders of each stage stay in any case
        budget_gb: GB that everything may take; nothing goes below it, and above it the oldest goes first
    """
    settings = load_settings()
    with open_registry(settings) as registry:
        removed = prune(
            settings.home, registry, keep, "schedule", dry_run=False, budget_bytes=None if budget_gb is None else budget_gb * _GB
        )
    freed, taken = sum(each.size_bytes for each in removed) / _GB, taken_bytes(settings.home) / _GB
    over = "" if budget_gb is None or taken <= budget_gb else f": {taken - budget_gb:.3g} GB over the budget, and all of it is needed"
    Display(make_console()).say(f"  freed {freed:.3g} GB in {len(removed)} folders, {taken:.3g} GB are taken{over}")
    return freed
