"""The flow that keeps the disk within its budget, by the policy of `tunegate prune`. Next: `pruning.py`."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.display import Display, make_console
from flows.pruning import prune, taken_bytes
from flows.serving_control import open_registry
from serving.artefact_store import store_of
from serving.settings import load_settings

_GB = 1e9


@flow(name="make-room", persist_result=False)
def make_room(keep: Annotated[int, Field(ge=1, le=1_000)] = 2, budget_gb: Annotated[float | None, Field(gt=0)] = None) -> float:
    """Remove old runs and stored models that nothing needs: never a champion, the one before it, or what waits. Returns the GB freed.

    Args:
        keep: how many of the newest folders of each stage stay in any case
        budget_gb: GB that everything may take, store included; above it the oldest goes first, kept answers only where that is not enough
    """
    settings, budget_bytes = load_settings(), None if budget_gb is None else budget_gb * _GB
    store = store_of(settings)
    with open_registry(settings) as registry:
        removed = prune(settings.home, registry, keep, "schedule", dry_run=False, budget_bytes=budget_bytes, store=store)
    freed, taken = sum(each.size_bytes for each in removed) / _GB, taken_bytes(settings.home, store) / _GB
    over = "" if budget_gb is None or taken <= budget_gb else f": {taken - budget_gb:.3g} GB over the budget, and all of it is needed"
    Display(make_console()).say(f"  freed {freed:.3g} GB in {len(removed)} places, {taken:.3g} GB are taken{over}")
    return freed
