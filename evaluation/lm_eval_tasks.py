"""Which lm-eval tasks show what a model has forgotten, and what their per-item results say.

A name is first a task file: YAML in lm-eval's own format, next to a JSONL file of items named by `items`; nothing is fetched from a
hub for it. Any other name is one of lm-eval's own tasks, whose items come from a hub or its cache. Knows nothing of
servers. Next: `lm_eval_run.py`, which runs them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.config import ForgettingSection
from evaluation.documents import read_jsonl, read_yaml
from evaluation.errors import ScoringError, SuiteError
from evaluation.records import TaskScore
from training.records import digest_of

TASKS_FOLDER = Path(__file__).parent / "tasks"
_PREFERRED_METRICS = ("acc", "exact_match")


@dataclass(frozen=True)
class LocalTask:
    """A task file with its items read."""

    name: str
    config: Mapping[str, Any]
    items: tuple[dict[str, Any], ...]

    @property
    def digest(self) -> str:
        """Over everything that can change a result."""
        return digest_of({"config": dict(self.config), "items": list(self.items)})


def choose_tasks(section: ForgettingSection) -> tuple[LocalTask | str, ...]:
    """The section's tasks in order: a task file, or the name of one of lm-eval's own.

    Raises:
        SuiteError: a task file cannot be used; with every problem.
    """
    local = load_tasks(TASKS_FOLDER) | (load_tasks(section.folder) if section.folder else {})
    return tuple(local.get(name, name) for name in section.tasks)


def load_tasks(folder: Path) -> dict[str, LocalTask]:
    """The task files of a folder by name, each with its items.

    Raises:
        SuiteError: with every problem.
    """
    problems: list[str] = []
    tasks: dict[str, LocalTask] = {}
    for path in sorted(folder.glob("*.yaml")):
        task = _load_task(path, problems)
        if task and task.name in tasks:
            problems.append(f"{path}:1: a task named {task.name} is there already")
        elif task:
            tasks[task.name] = task
    if not tasks and not problems:
        problems.append(f"{folder}: no task files (*.yaml)")
    if problems:
        raise SuiteError(problems)
    return tasks


def _load_task(path: Path, problems: list[str]) -> LocalTask | None:
    document = read_yaml(path, problems)
    if document is None:
        return None
    if not isinstance(document.value, dict) or not {"task", "items", "output_type"} <= document.value.keys():
        problems.append(f"{path}:1: a task file has the keys task, items (a JSONL file beside it) and output_type")
        return None
    items = tuple(value for _, value in read_jsonl(path.parent / str(document.value["items"]), problems))
    if not items:
        problems.append(f"{document.where(('items',))}: {document.value['items']} holds no items")
    config = {key: value for key, value in document.value.items() if key != "items"}
    return LocalTask(str(document.value["task"]), config, items)


def terms_of(task: LocalTask | str, section: ForgettingSection) -> str:
    """Digest of everything that has to be equal for two models' results to be compared."""
    what = task.digest if isinstance(task, LocalTask) else {"task": task, "lm_eval": version("lm-eval")}
    return digest_of({"task": what, **section.model_dump(mode="json", include={"items", "few_shot", "api"})})


def forgetting_terms(section: ForgettingSection | None) -> list[str]:
    """The terms of all tasks of a section, for whoever keeps results."""
    return [terms_of(task, section) for task in choose_tasks(section)] if section else []


def score(name: str, terms: str, samples: Sequence[Mapping[str, Any]], expected: int) -> TaskScore:
    """Plain numbers from lm-eval's per-item results, in item order; a group's tasks one after the other.

    Raises:
        ScoringError: not every item was judged, or not by yes or no.
    """
    metric = _metric_of(name, samples)
    first_filter = samples[0].get("filter")  # others are other readings of the same answers
    chosen = [sample for sample in samples if sample.get("filter") == first_filter]
    values = [float(sample[metric]) for sample in chosen]
    if len(values) != expected or not set(values) <= {0.0, 1.0}:
        raise ScoringError(
            f"task {name}: lm-eval judged {len(values)} of {expected} items by {metric}, with values like {values[:3]}",
            why="each item must be right or wrong, so that the same items can be compared before and after",
            do="choose a task whose metric is acc or exact_match",
        )
    return TaskScore(
        task=name, metric=metric, terms=terms, accuracy=math.fsum(values) / len(values), correct=tuple(value == 1.0 for value in values)
    )


def _metric_of(name: str, samples: Sequence[Mapping[str, Any]]) -> str:
    """The metric that every item has; acc before exact_match before any other."""
    offered = set.intersection(*(set(sample.get("metrics", ())) for sample in samples)) if samples else set()
    found = [metric for metric in _PREFERRED_METRICS if metric in offered] or sorted(offered)
    if not found:
        raise ScoringError(f"task {name}: lm-eval gave no number for its items", do="give the task a metric_list")
    return found[0]
