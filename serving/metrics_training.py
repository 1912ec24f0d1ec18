"""The metrics of a training that goes on; there is no series where nothing is trained.

Label values come from the registry and from closed sets: a public name that the registry does not know makes no series.
Next: `training_now.py`, where the figures come from.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge

from serving.records import Snapshot
from serving.training_now import TrainingNow


class TrainingMetrics:
    """Where the trainings that go on now stand."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_stage = ["public_name", "stage"]

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"tunegate_training_{name}", what, by_stage, registry=registry)

        self._gauges = {
            "step": gauge("step", "Steps made"),
            "steps": gauge("steps", "Steps of the whole run"),
            "loss": gauge("loss", "Training loss of the last step, nats per answer token"),
            "held_out_loss": gauge("held_out_loss", "Loss on the held-back rows, when it was last measured"),
            "learning_rate": gauge("learning_rate", "Learning rate of the last step"),
            "tokens_per_s": gauge("tokens_per_second", "Tokens a second, padding not counted"),
            "memory_bytes": gauge("memory_bytes", "Peak of the GPU's memory, or memory of the process where there is no GPU"),
        }
        self._names: set[str] = set()

    def follow(self, snapshot: Snapshot) -> None:
        """Learn which public names there are."""
        self._names = {release.public_name for release in snapshot.releases}

    def show(self, trainings: Iterable[TrainingNow]) -> None:
        """These trainings and no others go on."""
        for gauge in self._gauges.values():
            gauge.clear()
        for now in trainings:
            if now.public_name in self._names:
                for name, gauge in self._gauges.items():
                    if (value := getattr(now, name)) is not None:
                        gauge.labels(now.public_name, now.stage).set(value)
