"""How far a server's log-probabilities and greedy tokens are from the trainer's, and which number type that distance speaks of. Pure.

Next: `parity.py`, which decides.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from evaluation.parity_probe import ServedSample
from evaluation.parity_records import Dtype, LogprobFigures, Sample, TokenIds

# The tolerances are measured, not chosen: each is a multiple of the distance between the trainer's own bfloat16 and float32 numbers
# of the same weights (`own_mean`, `own_max`). Servers that were honest in bfloat16 had 0.69 (a tiny model) to 0.94 of that mean
# (135 million parameters) and 0.64 to 1.31 of that largest; one in float16 had 0.07 to 0.12 of the mean, one in float32 0.0001; the
# base model in the merged one's place 31 to 55 times it. See tests/benchmarks/parity_faults.py.
_MEAN_FACTOR, _MAX_FACTOR = 3.0, 5.0
_DTYPE_BELOW: tuple[tuple[float, Dtype], ...] = ((0.02, "float32"), (0.35, "float16"), (_MEAN_FACTOR, "bfloat16"))
# Honest servers agreed on 98 % of the greedy tokens and more: where two are all but equal, rounding decides. The base agreed on none.
_AGREEMENT_MIN = 0.85


def measure_distance(samples: Sequence[Sample], served: Sequence[ServedSample], dtype: Dtype) -> LogprobFigures | None:
    """Every figure of the comparison; None where there is no sample."""
    if not samples:
        return None
    both = list(pairs(samples, served))
    apart = sorted(distances((each.exact, theirs) for each, theirs in both))
    own = distances((each.exact, each.rounded) for each, _ in both)
    agreed = [common(each.greedy, theirs.greedy) for each, theirs in zip(samples, served, strict=True)]
    asked = [min(same + 1, len(each.greedy)) for same, each in zip(agreed, samples, strict=True)]
    mean, own_mean = statistics.mean(apart), statistics.mean(own)
    return LogprobFigures(
        conversations=len(samples),
        tokens=len(apart),
        mean=mean,
        median=statistics.median(apart),
        p99=apart[int(0.99 * (len(apart) - 1))],
        max=apart[-1],
        own_mean=own_mean,
        own_max=max(own),
        mean_limit=_MEAN_FACTOR * own_mean,
        max_limit=_MAX_FACTOR * max(own),
        base_mean=statistics.mean(distances((each.exact, each.base) for each in samples)),
        dtype_expected=dtype,
        dtype_seen=next((name for below, name in _DTYPE_BELOW if mean <= below * own_mean), None),
        greedy_tokens=sum(asked),
        greedy_agreed=sum(agreed),
        agreement_min=_AGREEMENT_MIN,
    )


def pairs(samples: Sequence[Sample], served: Sequence[ServedSample]) -> Iterator[tuple[Sample, tuple[float, ...]]]:
    """Each sample with the server's log-probabilities of its tokens, up to and without the first greedy token that differs."""
    for ours, theirs in zip(samples, served, strict=True):
        yield ours, (*theirs.prompt, *theirs.greedy_logprobs[: common(ours.greedy, theirs.greedy)])


def distances(of: Iterable[tuple[Sequence[float], Sequence[float]]]) -> list[float]:
    """Absolute differences, token by token."""
    # The shorter side ends a pair: behind a greedy token that differs, the two no longer speak of the same text.
    return [abs(one - other) for ours, theirs in of for one, other in zip(ours, theirs, strict=False)]


def common(ours: TokenIds, theirs: TokenIds) -> int:
    """How many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
