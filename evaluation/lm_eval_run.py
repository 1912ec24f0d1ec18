"""Runs lm-eval tasks against an endpoint, through lm-eval's own `local-completions` and `local-chat-completions` models.

Multiple choice is judged by log-likelihoods, with token ids from the server's own `/tokenize`, so that no tokenizer has to be
loaded here. Chat goes through the server's template and can only judge what is generated. Importing lm-eval takes seconds and brings
torch: it is imported when a task is prepared, and best in a process of its own. Next: `lm_eval_process.py`.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from evaluation.client import Endpoint
from evaluation.config import ForgettingSection
from evaluation.errors import EndpointError, ScoringError, SuiteError, nearest
from evaluation.lm_eval_tasks import LocalTask, choose_tasks, score, terms_of
from evaluation.records import TaskScore

_TIMEOUT_S = 120
_ATTEMPTS = 3
_BATCH = 8  # prompts in one request
_SEED = 1234


@dataclass(frozen=True)
class PreparedTask:
    """A task that lm-eval has loaded, items and all; `leaves` are several where the name stands for a group."""

    name: str
    terms: str
    leaves: dict[str, Any]


def prepare_tasks(section: ForgettingSection) -> tuple[PreparedTask, ...]:
    """Load the section's tasks with their items; needs no endpoint, so it can be done while a server starts.

    Raises:
        SuiteError: a task file cannot be used, or a name is unknown to lm-eval.
        ScoringError: the items of one of lm-eval's own tasks cannot be fetched.
    """
    _load_runner()
    chosen = choose_tasks(section)
    manager = _manager(any(isinstance(task, str) for task in chosen))
    if unknown := [task for task in chosen if isinstance(task, str) and task not in manager.all_tasks]:
        raise SuiteError([f"evaluation.forgetting.tasks: there is no task '{name}'{_like(name, manager.all_tasks)}" for name in unknown])
    return tuple(_prepare(manager, task, section) for task in chosen)


def run_prepared(endpoint: Endpoint, tasks: Sequence[PreparedTask], section: ForgettingSection, concurrency: int) -> tuple[TaskScore, ...]:
    """Ask the endpoint every item of every task.

    Raises:
        EndpointError: the server failed, or answered something that is no log-probability.
        ScoringError: a task cannot be judged over this API, or gave no number.
    """
    from lm_eval.evaluator import evaluate

    with _faults(endpoint):
        model = _model(endpoint, section, concurrency)
        return tuple(_run(evaluate, model, task, section) for task in tasks)


def run_tasks(endpoint: Endpoint, section: ForgettingSection, concurrency: int) -> tuple[TaskScore, ...]:
    """Prepare and run, in this process."""
    return run_prepared(endpoint, prepare_tasks(section), section, concurrency)


def _load_runner() -> None:
    """Import now what asking needs: seconds on a busy machine, and by then a server waits for questions."""
    import lm_eval.evaluator
    import lm_eval.models.openai_completions  # noqa: F401


@cache
def _manager(own_tasks: bool) -> Any:
    """lm-eval's loader; looking through its own thousands of task files takes many seconds."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns about settings that we choose on purpose
    return TaskManager(include_defaults=own_tasks)


def _prepare(manager: Any, task: LocalTask | str, section: ForgettingSection) -> PreparedTask:
    name = task if isinstance(task, str) else task.name
    try:
        leaves = manager.load([task if isinstance(task, str) else _with_dataset(task)])["tasks"]
    except Exception as error:  # what a hub client raises is of many families
        raise ScoringError(
            f"task {name} cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            why="lm-eval fetches the items of its own tasks from a hub",
            do="make the hub reachable (HF_ENDPOINT), fill its cache (HF_HOME), or name a task file instead",
        ) from error
    for leaf in leaves.values():
        if section.few_shot is not None:
            leaf.set_config(key="num_fewshot", value=section.few_shot)
        elif leaf.get_config("num_fewshot") is None:
            leaf.set_config(key="num_fewshot", value=0)
        leaf.set_fewshot_seed(seed=_SEED)
        _check_api(name, leaf, section)
    return PreparedTask(name, terms_of(task, section), dict(sorted(leaves.items())))


def _check_api(name: str, leaf: Any, section: ForgettingSection) -> None:
    kind = leaf.get_config("output_type")
    if section.api == "chat" and kind != "generate_until":
        raise ScoringError(
            f"task {name} is judged by {kind}, which the chat API cannot give",
            why="chat completions carry no log-probabilities of a given answer",
            do="set evaluation.forgetting.api: completions",
        )


def _with_dataset(task: LocalTask) -> dict[str, Any]:
    """lm-eval's configuration of a task whose items are in memory."""
    from datasets import Dataset

    items = list(task.items)
    return {**task.config, "custom_dataset": lambda **_: {"test": Dataset.from_list(items)}, "test_split": "test"}


def _run(evaluate: Any, model: Any, task: PreparedTask, section: ForgettingSection) -> TaskScore:
    results = evaluate(
        lm=model,
        task_dict={"tasks": task.leaves, "groups": {}, "group_map": {}},
        limit=section.items,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=section.api == "chat",
    )
    found = (results or {}).get("samples") or {}
    samples = [sample for leaf in task.leaves for sample in sorted(found.get(leaf) or [], key=lambda sample: int(sample["doc_id"]))]
    sizes = [len(leaf.eval_docs) for leaf in task.leaves.values()]
    return score(task.name, task.terms, samples, sum(min(size, section.items or size) for size in sizes))


def _model(endpoint: Endpoint, section: ForgettingSection, concurrency: int) -> Any:
    """lm-eval's model of an API server, with the server's own tokenizer and our key."""
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    class Completions(LocalCompletionsAPI):  # type: ignore[misc]  # lm-eval is untyped
        @staticmethod
        def parse_logprobs(outputs: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            parsed = LocalCompletionsAPI.parse_logprobs(outputs, **kwargs)
            if not all(math.isfinite(logprob) for logprob, _ in parsed):  # the choice of a maximum among NaN would be the first
                raise ValueError("a log-probability that is not a finite number")
            return list(parsed)

    shared = {"model": endpoint.model, "num_concurrent": concurrency, "max_retries": _ATTEMPTS, "timeout": _TIMEOUT_S, "seed": _SEED}
    header = {"Authorization": f"Bearer {endpoint.api_key.get_secret_value()}"}
    if section.api == "chat":
        return LocalChatCompletion(base_url=f"{endpoint.root}/v1/chat/completions", header=header, **shared)
    tokenizer = ServerTokenizer(endpoint)
    model = Completions(
        base_url=f"{endpoint.root}/v1/completions",
        tokenizer_backend=None,
        header=header,
        max_length=tokenizer.context_length(),
        batch_size=_BATCH,
        **shared,
    )
    model.tokenizer, model.tokenizer_backend, model.tokenized_requests = tokenizer, "remote", True
    return model


class ServerTokenizer:
    """Token ids from `/tokenize`; lm-eval's own remote tokenizer needs a route that vLLM keeps off by default."""

    eos_token_id = bos_token_id = None
    eos_token = ""

    def __init__(self, endpoint: Endpoint) -> None:
        import requests

        self._endpoint, self._session = endpoint, requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {endpoint.api_key.get_secret_value()}"
        self._known = lru_cache(maxsize=65_536)(self._ask)  # the choices of an item share its question

    def encode(self, text: str) -> list[int]:
        """Token ids, without special tokens."""
        return list(self._known(text))

    def context_length(self) -> int:
        """Tokens that the served model takes."""
        reply = self._session.get(f"{self._endpoint.root}/v1/models", timeout=_TIMEOUT_S)
        reply.raise_for_status()
        return next(int(entry["max_model_len"]) for entry in reply.json()["data"] if entry["id"] == self._endpoint.model)

    def _ask(self, text: str) -> tuple[int, ...]:
        body: dict[str, Any] = {"model": self._endpoint.model, "prompt": text, "add_special_tokens": False}
        reply = self._session.post(f"{self._endpoint.root}/tokenize", json=body, timeout=_TIMEOUT_S)
        reply.raise_for_status()
        return tuple(int(token) for token in reply.json()["tokens"])


@contextmanager
def _faults(endpoint: Endpoint) -> Iterator[None]:
    """Name what goes wrong on the wire."""
    import aiohttp

    try:
        yield
    except (OSError, aiohttp.ClientError) as error:  # requests' own errors are OSErrors
        raise EndpointError(f"{endpoint.root}: an lm-eval request failed {_ATTEMPTS} times: {error!r}", fault="http") from error
    except (KeyError, TypeError, ValueError, AssertionError, StopIteration) as error:
        raise EndpointError(
            f"{endpoint.root}: lm-eval was answered something else than the API promises: {error!r}", fault="protocol"
        ) from error


def _like(name: str, known: Sequence[str]) -> str:
    said = nearest(name, known)
    return said if said.startswith("; did") else "; task files are in evaluation/tasks, lm-eval's own names in its documentation"
