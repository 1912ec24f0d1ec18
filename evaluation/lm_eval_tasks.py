"""Runs lm-eval tasks against an endpoint: what a model may have forgotten while it learned something else.

Task files are YAML in lm-eval's own format, next to a JSONL file of items named by `items`; nothing is fetched from a hub.
Multiple choice is judged by log-likelihoods through lm-eval's `local-completions` model, with token ids from the server's own
`/tokenize`, so that no tokenizer has to be loaded here. lm-eval imports torch: it is imported when a task is run, not before.
Next: `scoring.py`.
"""

import logging
import math
from pathlib import Path
from typing import Any

from evaluation.client import Endpoint
from evaluation.documents import read_jsonl, read_yaml
from evaluation.errors import EndpointError, ScoringError, SuiteError
from evaluation.records import TaskScore

TASKS_FOLDER = Path(__file__).parent / "tasks"
_TIMEOUT_S = 120


def run_tasks(endpoint: Endpoint, *, concurrency: int, folder: Path = TASKS_FOLDER) -> tuple[TaskScore, ...]:
    """Run every task file of a folder against an endpoint, in name order.

    Raises:
        SuiteError: a task file cannot be used, or there is none.
        EndpointError: the server failed.
        ScoringError: lm-eval gave no number for a task.
    """
    import requests
    from lm_eval import simple_evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns about settings that we choose on purpose
    tasks = load_tasks(folder)
    try:
        results = simple_evaluate(
            model=_local_completions(endpoint, concurrency),
            tasks=[_with_dataset(task) for task in tasks],
            bootstrap_iters=0,
            log_samples=True,
        )
    except (requests.RequestException, OSError) as error:
        raise EndpointError(f"{endpoint.root}: an lm-eval request failed: {error!r}", fault="http") from error
    samples = (results or {}).get("samples") or {}
    return tuple(_score(str(task["task"]), samples.get(task["task"]) or [], len(task["items"])) for task in tasks)


def load_tasks(folder: Path) -> list[dict[str, Any]]:
    """The task files of a folder, each with its items read in place of their file's name.

    Raises:
        SuiteError: with every problem.
    """
    problems: list[str] = []
    tasks = []
    for path in sorted(folder.glob("*.yaml")):
        document = read_yaml(path, problems)
        if document is None:
            continue
        if not isinstance(document.value, dict) or not {"task", "items", "output_type"} <= document.value.keys():
            problems.append(f"{path}:1: a task file has the keys task, items (a JSONL file beside it) and output_type")
            continue
        items = [value for _, value in read_jsonl(path.parent / str(document.value["items"]), problems)]
        if not items:
            problems.append(f"{document.where(('items',))}: {document.value['items']} holds no items")
        tasks.append({**document.value, "items": items})
    if not tasks and not problems:
        problems.append(f"{folder}: no task files (*.yaml)")
    if problems:
        raise SuiteError(problems)
    return tasks


def _with_dataset(task: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's configuration of a task whose items are in memory."""
    from datasets import Dataset

    items = task["items"]
    rest = {key: value for key, value in task.items() if key != "items"}
    return {**rest, "custom_dataset": lambda **_: {"test": Dataset.from_list(items)}, "test_split": "test"}


def _local_completions(endpoint: Endpoint, concurrency: int) -> Any:
    """lm-eval's `local-completions` model with the server's own tokenizer and our key."""
    import requests
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    headers = {"Authorization": f"Bearer {endpoint.api_key.get_secret_value()}"}

    class ServerTokenizer:
        """Token ids from `/tokenize`; lm-eval's own remote tokenizer needs a route that vLLM keeps off by default."""

        eos_token_id = bos_token_id = None
        eos_token = ""

        def encode(self, text: str) -> list[int]:
            body: dict[str, Any] = {"model": endpoint.model, "prompt": text, "add_special_tokens": False}
            reply = requests.post(f"{endpoint.root}/tokenize", json=body, headers=headers, timeout=_TIMEOUT_S)
            reply.raise_for_status()
            return [int(token) for token in reply.json()["tokens"]]

    model = LocalCompletionsAPI(
        base_url=f"{endpoint.root}/v1/completions",
        model=endpoint.model,
        tokenizer_backend=None,
        num_concurrent=concurrency,
        max_retries=3,
        timeout=_TIMEOUT_S,
        header=headers,
    )
    model.tokenizer, model.tokenizer_backend, model.tokenized_requests = ServerTokenizer(), "remote", True
    return model


def _score(task: str, samples: list[dict[str, Any]], expected: int) -> TaskScore:
    """Plain numbers from lm-eval's per-item results, in item order."""
    ordered = sorted(samples, key=lambda sample: int(sample["doc_id"]))
    correct = tuple(float(sample["acc"]) == 1.0 for sample in ordered if "acc" in sample)
    if len(correct) != expected:
        raise ScoringError(f"task {task}: lm-eval judged {len(correct)} of {expected} items", do="the task's metric must be `acc`")
    return TaskScore(task=task, accuracy=math.fsum(correct) / len(correct), correct=correct)
