"""Does an engine that has just started answer as it did when its release was judged? A short form of parity, at every start.

The line keeps a few conversations and log-probabilities of the trainer's view once parity holds; a server that is started again, after
a crash, an update of vLLM or a rollback, must still render them in the same tokens and give them the same probabilities within the same
tolerances. A release that was never compared with a trainer, such as a base model, has nothing to be held against, and it is said so; one
that was is not served when what was kept of it is gone.
Next: `supervisor.py`, which asks before an engine counts as ready; `evaluation/parity.py`, the long form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.client import Endpoint
from evaluation.errors import EndpointError
from evaluation.parity import identity_only, judge_parity
from evaluation.parity_conversations import Conversation
from evaluation.parity_probe import ask_server
from evaluation.parity_records import Dtype, FaultKind, TrainerView
from serving.errors import SlotError
from training.atomic import write_text

T = TypeVar("T")
_FILE = "start.json"
# Apart from the references, so that one that is deleted is missed.
_EXPECTED = "expected"
_CONVERSATIONS, _SAMPLES = 8, 4
# What so few answers cannot say: enough of them, stop tokens, and where two greedy tokens are all but equal.
_NOT_ASKED = frozenset({FaultKind.NOT_MEASURED, FaultKind.STOP_TOKENS, FaultKind.END_OF_TURN, FaultKind.DEFAULTS, FaultKind.DECODING})
_UNKNOWN_ROUTE = 404


class StartReference(BaseModel):
    """What an engine of one release must do again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conversations: tuple[Conversation, ...]
    trained: TrainerView
    context_tokens: int
    dtype: Dtype
    quantized: bool


@dataclass(frozen=True)
class _Manner:
    concurrency: int = 4
    timeout_s: float = 60.0
    attempts: int = 2


def keep_for_starts(
    folder: Path, release_id: str, conversations: Sequence[Conversation], trained: TrainerView, context_tokens: int, dtype: Dtype, *,
    quantized: bool = False,
) -> None:  # fmt: skip
    """Keep a spread of what parity has compared; what was there is replaced."""
    rendered = {each.name: each for each in trained.conversations}
    chosen = _spread([each for each in conversations if rendered[each.name].ids is not None], _CONVERSATIONS)
    view = trained.model_copy(
        update={
            "conversations": tuple(rendered[each.name] for each in chosen),
            "samples": tuple(_spread(trained.samples, _SAMPLES)),
            "texts": {},
        }
    )
    reference = StartReference(conversations=tuple(chosen), trained=view, context_tokens=context_tokens, dtype=dtype, quantized=quantized)
    (folder / release_id).mkdir(parents=True, exist_ok=True)
    (folder / _EXPECTED).mkdir(exist_ok=True)
    write_text(folder / _EXPECTED / release_id, trained.model_digest)
    write_text(folder / release_id / _FILE, reference.model_dump_json(), mode=0o600)


def check_start(folder: Path, release_id: str, model_digest: str, endpoint: Endpoint) -> str:
    """Compare; returns what there is to say about it, in a few words. Takes as long as a few short answers.

    Raises:
        SlotError: it answers otherwise, the comparison failed, or what it must be held against is gone.
    """
    reference = _read(folder, release_id)
    if reference is None or reference.trained.model_digest != model_digest:
        return _nothing_to_compare(folder, release_id, model_digest)
    trained = reference.trained
    try:
        served = ask_server(endpoint, _Manner(), trained, reference.conversations, {})
    except EndpointError as error:
        if error.status == _UNKNOWN_ROUTE:
            return "not compared with the trained model: the engine has no /tokenize"
        raise SlotError(f"the engine of {release_id} could not be compared with the trained model: {error.what}") from error
    identity = identity_only(release_id, model_digest, trained.suite_digest, trained.weights_sha256)
    report = judge_parity(
        trained, served, identity, context_tokens=reference.context_tokens, dtype=reference.dtype, quantized=reference.quantized
    )
    faults = [fault for fault in report.faults if fault.kind not in _NOT_ASKED]
    if faults:
        raise SlotError(
            f"the engine of {release_id} does not answer as it was judged: {faults[0].kind}: {faults[0].subject}: {faults[0].what}",
            why="what was judged would not be what is served",
            do="look for what has changed since: vLLM's version, its options, files beside the weights",
        )
    return f"{len(trained.conversations)} conversations and {len(trained.samples)} log-probabilities as judged"


def _nothing_to_compare(folder: Path, release_id: str, model_digest: str) -> str:
    """For a release that was never compared with a trainer, which is said; raises SlotError for one that was."""
    try:
        expected = (folder / _EXPECTED / release_id).read_text(encoding="utf-8")
    except FileNotFoundError:
        return "not compared with a trained model: on this machine none was kept for it"
    except (OSError, ValueError) as error:
        raise _lost(folder, release_id, f"cannot be looked for: {type(error).__name__}") from error
    if expected != model_digest:
        return "not compared with a trained model: what was kept is of another model"
    raise _lost(folder, release_id, "is gone, or of another model")


def _lost(folder: Path, release_id: str, how: str) -> SlotError:
    return SlotError(
        f"{folder / release_id / _FILE} {how}",
        why="nobody knows what the engine must be held against",
        do=f"restore it from a backup; or, to serve it unchecked, delete {folder / _EXPECTED / release_id}",
    )


def _read(folder: Path, release_id: str) -> StartReference | None:
    try:
        return StartReference.model_validate_json((folder / release_id / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise SlotError(
            f"{folder / release_id / _FILE} cannot be read: {type(error).__name__}",
            why="nobody knows what the engine must be held against",
            do="run the recipe again, which writes it anew",
        ) from error


def _spread(items: Sequence[T], most: int) -> list[T]:
    return list(items[:: max(1, len(items) // most)][:most])
