"""Hand-written stand-ins for the serving tests: a clock that is moved by hand, and registries with releases in a known state."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from serving.config import ServingSection
from serving.engine import EngineCommand
from serving.lifecycle import State
from serving.records import Release, Rollout, ServerInfo, SlotInfo, SlotState
from serving.registry import Registry
from serving.rollout_section import RolloutSection, RolloutStep
from training.records import BaseModelRecord, digest_files

EVIDENCE = "e" * 64


class Clock:
    """Says the same time until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def seconds(self) -> float:
        """A monotonic clock that goes with this one."""
        return self.time.timestamp()


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'registry.db'}"


STEPS = RolloutSection(steps=(RolloutStep(percent=5, min_requests=100, min_s=10), RolloutStep(percent=25, min_requests=100, min_s=10)))


def candidate(
    registry: Registry,
    *,
    name: str = "clinic",
    digest: str = "a" * 64,
    folder: Path = Path("/models/a"),
    rollout: RolloutSection = STEPS,
    **more: Any,
) -> Release:
    section = ServingSection(public_name=name, rollout=rollout, **more)
    return registry.add_release(
        public_name=name, model_digest=digest, model_dir=folder, serving=section, recipe_name="demo", requester="ann"
    )


def champion(registry: Registry, *, name: str = "clinic", digest: str = "a" * 64, folder: Path = Path("/models/a")) -> Release:
    return registry.bootstrap(candidate(registry, name=name, digest=digest, folder=folder).id, "ann")


def approved(
    registry: Registry, *, name: str = "clinic", digest: str, folder: Path = Path("/models/b"), rollout: RolloutSection = STEPS, **more: Any
) -> Release:
    release = candidate(registry, name=name, digest=digest, folder=folder, rollout=rollout, **more)
    registry.submit(release.id, EVIDENCE, None, "gate")
    return registry.approve(release.id, EVIDENCE, "bob")


def canary(registry: Registry, *, name: str = "clinic", rollout: RolloutSection = STEPS, lease_s: float = 10.0) -> Rollout:
    """A rollout at its first step, with a champion beside it."""
    if registry.champion(name) is None:
        champion(registry, name=name)
    release = approved(registry, name=name, digest="b" * 64, rollout=rollout)
    return registry.rollouts.start(release.id, EVIDENCE, "bob", registry.now() + timedelta(seconds=lease_s))


def bare_release(number: int, state: State, *, name: str = "clinic", **serving: Any) -> Release:
    """A release that no registry knows."""
    return Release(
        id=f"{name}-{number}",
        public_name=name,
        number=number,
        state=state,
        model_digest=f"{number % 10}" * 64,
        model_dir=Path("/models/a"),
        evidence_digest=None,
        report_path=None,
        judged_against=None,
        recipe_name="demo",
        requester="ann",
        created_at=datetime.now(UTC),
        serving=ServingSection(public_name=name, **serving),
    )


def release_in(registry: Registry, state: State) -> Release:
    """A release that reached `state` by the steps that lead there."""
    if state in (State.LIVE, State.RETIRED, State.ROLLED_BACK):
        return _was_live(registry, state)
    if state is State.CANARY:
        return registry.release(canary(registry).release_id)
    release = candidate(registry)
    if state is State.REJECTED:
        registry.reject(release.id, "ann", "no")
    if state in (State.AWAITING_APPROVAL, State.APPROVED):
        registry.submit(release.id, EVIDENCE, None, "gate")
    if state is State.APPROVED:
        registry.approve(release.id, EVIDENCE, "bob")
    return registry.release(release.id)


def _was_live(registry: Registry, state: State) -> Release:
    first = champion(registry)
    if state is State.LIVE:
        return first
    second = registry.promote(approved(registry, digest="b" * 64).id, EVIDENCE, "bob")
    if state is State.RETIRED:
        return registry.release(first.id)
    registry.rollback("clinic", "bob", "worse")
    return registry.release(second.id)


def server_info(clock: Clock, *, boot_id: str = "one", pid: int = 1) -> ServerInfo:
    return ServerInfo(boot_id=boot_id, hostname="box", pid=pid, host="127.0.0.1", port=8080, started_at=clock(), beat_at=clock())


def slot_info(release_id: str, state: SlotState, at: datetime, *, port: int | None = 20_001, reason: str = "") -> SlotInfo:
    """What a server says of an engine on its own machine."""
    address = None if port is None else f"http://127.0.0.1:{port}"
    return SlotInfo(
        release_id=release_id, state=state, base_url=address, served_name=release_id, pid=1, restarts=0, reason=reason, updated_at=at
    )


def fake_engine(*flags: str) -> Callable[[Release, int], EngineCommand]:
    """A supervisor's `Command` that starts tests/fakes_engine.py; see there for the flags."""

    def command(release: Release, port: int) -> EngineCommand:
        script = str(Path(__file__).with_name("fakes_engine.py"))
        return EngineCommand((sys.executable, script, "--port", str(port), "--model", release.id, *flags), {})

    return command


def write_model(folder: Path, weights: str = "weights") -> str:
    """A model folder with a true record; returns the model's digest."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(weights)
    (folder / "config.json").write_text("{}")
    record = BaseModelRecord(created_at="2030-01-01T00:00:00Z", source="test", folder=str(folder), files=digest_files(folder))
    record.write(folder)
    return record.digest
