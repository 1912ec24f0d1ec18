"""Compares what the trainer computed from a merged model with what the live server does: it must be the same model, asked the same way.

A chat template, tokenizer, stop token, sampling default, number type or weight that differs between training and serving makes a
model worse without any error. The trainer's side is a record that another process wrote, so nothing here needs torch; the
server's side comes from `parity_probe.py`; the comparison of the two is pure. Next: `gate.py`.
"""

import statistics
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from evaluation.client import Endpoint
from evaluation.config import EvaluationSection
from evaluation.parity_conversations import awkward_texts, conversations_of
from evaluation.parity_figures import common, distances, measure_distance, pairs
from evaluation.parity_probe import ServedView, ask_server, probed_tokens
from evaluation.parity_records import (
    MIN_COMPARED,
    MIN_RENDERED,
    Dtype,
    Fault,
    FaultKind,
    LogprobFigures,
    ParityReport,
    TokenIds,
    TrainerView,
)
from evaluation.suite import Suite

# Rounding that moves a token's probability by more than a quarter leaves nothing to compare.
_OWN_MEAN_MOST = 0.25
# A seeded draw may turn where two tokens are all but equal; other settings turn most of them.
_DRAWS_TURNED_MOST = 2
_AROUND = 6  # token ids shown on each side of the first difference


def check_parity(
    endpoint: Endpoint,
    suite: Suite,
    section: EvaluationSection,
    trained: TrainerView,
    identity: ParityReport,
    *,
    context_tokens: int | None = None,
    dtype: Dtype = "bfloat16",
    quantized: bool = False,
) -> ParityReport:
    """Ask the live server all that the trainer's view answers, and compare.

    Args:
        endpoint: the live server.
        suite: the one that `trained` was made for.
        section: concurrency, timeout and attempts of the requests.
        trained: the trainer's side.
        identity: which model is served, and the hashes of its weights; see `identity_only`.
        context_tokens: context length that the server must report, if known.
        dtype: number type that the server should compute in.
        quantized: the server rounds its weights while it loads them.

    Raises:
        EndpointError: the server failed.
    """
    served = ask_server(endpoint, section, trained, conversations_of(suite), awkward_texts())
    return judge_parity(trained, served, identity, context_tokens=context_tokens, dtype=dtype, quantized=quantized)


def identity_only(subject: str, model_digest: str, suite_digest: str, weights_sha256: Mapping[str, str]) -> ParityReport:
    """The report of a model whose weights are those of its record, before or without any comparison with a trainer."""
    return ParityReport(
        created_at=_now(),
        subject=subject,
        model_digest=model_digest,
        suite_digest=suite_digest,
        against_trainer=False,
        weights_sha256=dict(weights_sha256),
    )


def broken_bytes(subject: str, model_digest: str, suite_digest: str, what: str) -> ParityReport:
    """The report of a model whose files are not those of its record: nothing else needs to be compared."""
    fault = Fault(kind=FaultKind.BYTES, subject="files", what=what)
    return identity_only(subject, model_digest, suite_digest, {}).model_copy(update={"faults": (fault,)})


def judge_parity(
    trained: TrainerView,
    served: ServedView,
    identity: ParityReport,
    *,
    context_tokens: int | None = None,
    dtype: Dtype = "bfloat16",
    quantized: bool = False,
) -> ParityReport:
    """Compare the two sides; pure."""
    figures = measure_distance(trained.samples, served.samples, dtype)
    faults = (
        *_byte_faults(trained, identity),
        *_text_faults(trained, served),
        *_rendering_faults(trained, served),
        *_stop_faults(trained, served),
        *_default_faults(trained, served),
        *_context_faults(served, context_tokens),
        *(_quantized_faults(trained, served, figures) if quantized else _weight_faults(trained, served, figures)),
        *_too_little(trained, served),
    )
    return ParityReport(
        created_at=_now(),
        subject=identity.subject,
        model_digest=identity.model_digest,
        suite_digest=identity.suite_digest,
        against_trainer=True,
        weights_sha256=identity.weights_sha256,
        compared=len(trained.conversations),
        refused=sum(each.ids is None for each in trained.conversations),
        texts=len(trained.texts),
        stop_tokens=tuple(sorted(served.stops)),
        stops_probed=len(probed_tokens(trained)),
        defaults=trained.defaults,
        default_draws=len(served.draws),
        context_tokens=served.context_tokens,
        figures=figures,
        faults=tuple(sorted(faults, key=lambda fault: list(FaultKind).index(fault.kind))),
    )


def _byte_faults(trained: TrainerView, identity: ParityReport) -> Iterator[Fault]:
    if (trained.model_digest, trained.suite_digest) != (identity.model_digest, identity.suite_digest):
        yield Fault(kind=FaultKind.BYTES, subject="records", what="the trainer's numbers are those of another model or another suite")
    for name in sorted(identity.weights_sha256.keys() | trained.weights_sha256.keys()):
        if identity.weights_sha256.get(name) != trained.weights_sha256.get(name):
            yield Fault(
                kind=FaultKind.BYTES, subject=name, what="the served file is not the one that the trainer's numbers were computed from"
            )
    if trained.weights_sha256 and set(trained.weights_sha256.values()) <= set(trained.base_weights_sha256.values()):
        what = "every weight file of the merged model is, byte for byte, one of the base model's"
        yield Fault(kind=FaultKind.ADAPTER_LOST, subject="weights", what=what)


def _text_faults(trained: TrainerView, served: ServedView) -> Iterator[Fault]:
    for name, ids in trained.texts.items():
        if (theirs := served.texts.get(name)) != ids:
            yield Fault(kind=FaultKind.TOKENIZER, subject=f"text:{name}", what=_difference(ids, theirs or ()))


def _rendering_faults(trained: TrainerView, served: ServedView) -> Iterator[Fault]:
    for each in trained.conversations:
        theirs = served.renderings.get(each.name)
        if each.ids == theirs:
            continue
        if each.ids is None or theirs is None:
            who = "the server" if theirs is None else "training"
            yield Fault(
                kind=FaultKind.TEMPLATE, subject=each.name, what=f"{who}'s template refuses this conversation, the other side's takes it"
            )
        else:
            yield Fault(kind=_rendering_kind(trained, each.ids, theirs), subject=each.name, what=_difference(each.ids, theirs))


def _rendering_kind(trained: TrainerView, ours: TokenIds, theirs: TokenIds) -> FaultKind:
    opening = len(trained.opening)
    if opening and ours[-opening:] == trained.opening and theirs == ours[:-opening]:
        return FaultKind.GENERATION_PROMPT
    if theirs == tuple(token for token in ours if token != trained.end_of_turn):
        return FaultKind.END_OF_TURN
    return FaultKind.TEMPLATE


def _stop_faults(trained: TrainerView, served: ServedView) -> Iterator[Fault]:
    probed, expected = set(probed_tokens(trained)), {trained.end_of_turn, *trained.stops}
    for token in sorted((expected & probed) - served.stops):
        lost = token == trained.end_of_turn
        kind, role = (FaultKind.END_OF_TURN, "ended every turn in training") if lost else (FaultKind.STOP_TOKENS, "should end an answer")
        yield Fault(kind=kind, subject=f"token {token}", what=f"the server writes on behind token {token}, which {role}")
    for token in sorted(served.stops - expected):
        yield Fault(
            kind=FaultKind.STOP_TOKENS,
            subject=f"token {token}",
            what=f"the server ends an answer at token {token}; the model's files do not",
        )


def _default_faults(trained: TrainerView, served: ServedView) -> Iterator[Fault]:
    turned = sum(bare != told for bare, told in served.draws)
    if turned > _DRAWS_TURNED_MOST:
        settings = ", ".join(f"{name} {value:g}" for name, value in sorted(trained.defaults.items()))
        what = f"{turned} of {len(served.draws)} seeded answers drawn without settings differ from those drawn with {settings}"
        yield Fault(kind=FaultKind.DEFAULTS, subject="generation_config.json", what=what)


def _context_faults(served: ServedView, expected: int | None) -> Iterator[Fault]:
    if not served.offered:
        yield Fault(kind=FaultKind.CONTEXT, subject="model", what="the server does not offer a model of this name")
    elif expected is not None and served.context_tokens != expected:
        what = f"the server says {served.context_tokens} tokens, the recipe {expected}"
        yield Fault(kind=FaultKind.CONTEXT, subject="max_model_len", what=what)


def _weight_faults(trained: TrainerView, served: ServedView, figures: LogprobFigures | None) -> Iterator[Fault]:
    if figures is None:
        return
    if figures.own_mean > _OWN_MEAN_MOST:
        what = f"rounding to bfloat16 alone moves this model's log-probabilities by {figures.own_mean:.3f} nats; nothing can be told apart"
        yield Fault(kind=FaultKind.NOT_MEASURED, subject="log-probabilities", what=what)
    elif figures.mean > figures.mean_limit or figures.max > figures.max_limit:
        yield _wrong_weights(trained, served, figures)
    elif figures.dtype_seen != figures.dtype_expected:
        what = f"the differences ({figures.mean:.2g} nats on average) are those of {figures.dtype_seen}, not of {figures.dtype_expected}"
        yield Fault(kind=FaultKind.DTYPE, subject="log-probabilities", what=what)
    if figures.agreement < figures.agreement_min:
        what = f"{figures.greedy_agreed} of {figures.greedy_tokens} greedy tokens are the trainer's, less than {figures.agreement_min:.0%}"
        yield Fault(kind=FaultKind.DECODING, subject="greedy answers", what=what)


def _quantized_faults(trained: TrainerView, served: ServedView, figures: LogprobFigures | None) -> Iterator[Fault]:
    """Rounding to 4 or 8 bits moves every number; but the served model must stay nearer to the merged one than to the base.

    Whether it is still good enough is judged by its answers, which come from this very server.
    """
    if figures is None:
        return
    from_base = statistics.mean(distances(((each.base, other) for each, other in pairs(trained.samples, served.samples))))
    if from_base <= figures.mean:
        what = f"served log-probabilities differ by {figures.mean:.3f} nats from the merged model's and by {from_base:.3f} from the base's"
        yield Fault(kind=FaultKind.BASE_SERVED, subject="log-probabilities", what=what)


def _wrong_weights(trained: TrainerView, served: ServedView, figures: LogprobFigures) -> Fault:
    from_base = statistics.mean(distances(((each.base, other) for each, other in pairs(trained.samples, served.samples))))
    what = (
        f"served and trained log-probabilities differ by {figures.mean:.3f} nats on average and {figures.max:.2f} at most, "
        f"allowed are {figures.mean_limit:.3f} and {figures.max_limit:.2f}"
    )
    if figures.tells_base_apart and from_base <= figures.mean_limit:
        return Fault(
            kind=FaultKind.BASE_SERVED, subject="log-probabilities", what=f"{what}; from the base model's they differ by {from_base:.3f}"
        )
    return Fault(kind=FaultKind.WEIGHTS, subject="log-probabilities", what=what)


def _too_little(trained: TrainerView, served: ServedView) -> Iterator[Fault]:
    compared = len(trained.conversations)
    rendered = sum(each.ids is not None for each in trained.conversations)
    if compared < MIN_COMPARED or rendered < MIN_RENDERED:
        what = f"{compared} conversations compared, {rendered} of them rendered; {MIN_COMPARED} and {MIN_RENDERED} are the least"
        yield Fault(kind=FaultKind.NOT_MEASURED, subject="conversations", what=what)
    if len(served.draws) <= 2 * _DRAWS_TURNED_MOST:
        yield Fault(kind=FaultKind.NOT_MEASURED, subject="generation defaults", what=f"only {len(served.draws)} answers were drawn")
    if not trained.samples:
        yield Fault(kind=FaultKind.NOT_MEASURED, subject="log-probabilities", what="no conversation was short enough to be measured")


def _difference(trained: TokenIds, served: TokenIds) -> str:
    """Where two renderings part, with the ids around that place."""
    at = common(trained, served)
    window = slice(max(0, at - 2), at + _AROUND)
    ours, theirs = list(trained[window]), list(served[window])
    return f"differs at token {at}: trained with {ours} of {len(trained)}, served with {theirs} of {len(served)}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
