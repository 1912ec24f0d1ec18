"""The trainer's side of a fake model, computed by hand: what `fakes_evaluation.py` and `fakes_flows_engine.py` do when they are honest.

A token is a character, its log-probability -(t % 7 + 1) / 10, and every greedy answer is `ABCDEFGH`. Served numbers are 0.010 above the
trainer's float32, its own bfloat16 is 0.012 above, and the base model a whole nat below.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evaluation.parity_conversations import awkward_texts, conversations_of
from evaluation.parity_records import Rendered, Sample, TrainerView
from evaluation.suite import Suite

GREEDY = tuple(range(65, 73))
END, OTHER_SPECIAL = 3, 4
WEIGHTS = {"model.safetensors": "0" * 64}
DEFAULTS = {"temperature": 1.0, "top_p": 1.0}
SERVED, ROUNDED, BASE = 0.010, 0.012, -1.0


def trainer_view(
    suite: Suite,
    render: Callable[[Sequence[dict[str, Any]]], Sequence[int]],
    *,
    model_digest: str = "m" * 64,
    weights: Mapping[str, str] = WEIGHTS,
    opening: Sequence[int] = (),
) -> TrainerView:
    """What the render stage would write of a model that renders with `render`."""
    rendered = tuple(Rendered(name=each.name, ids=tuple(render(each.messages))) for each in conversations_of(suite))
    short = [each for each in rendered if each.ids is not None and 2 <= len(each.ids) <= 60][:16]
    return TrainerView(
        created_at="2030-01-01T00:00:00+00:00",
        model_digest=model_digest,
        base_digest="b" * 64,
        suite_digest=suite.digest,
        conversations=rendered,
        texts={name: tuple(ord(char) for char in text) for name, text in awkward_texts().items()},
        opening=tuple(opening),
        end_of_turn=END,
        stops=(END,),
        special=(END, OTHER_SPECIAL),
        defaults=DEFAULTS,
        samples=tuple(_sample(each) for each in short),
        weights_sha256=dict(weights),
        base_weights_sha256={"model.safetensors": "b" * 64},
    )


def _sample(rendered: Rendered) -> Sample:
    assert rendered.ids is not None
    exact = [-(token % 7 + 1) / 10 - SERVED for token in (*rendered.ids, *GREEDY)[1:]]
    rounded, base = (tuple(value + moved for value in exact) for moved in (ROUNDED, BASE))
    return Sample(name=rendered.name, prompt=rendered.ids, greedy=GREEDY, exact=tuple(exact), rounded=rounded, base=base)
