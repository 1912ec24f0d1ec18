"""What the registry hands out: frozen values, whole at the moment they were read.

Knows nothing of SQL. Next: `registry.py`.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from serving.config import ServingSection
from serving.lifecycle import State


class SlotState(StrEnum):
    """What an engine process is doing. Only a ready one gets traffic."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Release(_Value):
    """A model that is, was or may become what a public name answers with."""

    id: str
    public_name: str
    number: int
    state: State
    model_digest: str
    model_dir: Path
    evidence_digest: str | None
    report_path: Path | None
    judged_against: str | None
    recipe_name: str
    requester: str
    created_at: datetime
    serving: ServingSection


class Transition(_Value):
    """One step in a release's life; never changed, never deleted."""

    seq: int
    release_id: str
    from_state: State | None
    to_state: State
    actor: str
    reason: str
    evidence_digest: str | None
    at: datetime


class SlotInfo(_Value):
    """What the server last said about a release's engine. `reason` tells why it is not ready."""

    release_id: str
    state: SlotState
    port: int | None
    pid: int | None
    restarts: int
    reason: str
    updated_at: datetime

    @property
    def base_url(self) -> str | None:
        """Root of the engine's HTTP server, without `/v1`; None before a port is chosen."""
        return None if self.port is None else f"http://127.0.0.1:{self.port}"


class ServerInfo(_Value):
    """The one server that looks after this registry. `boot_id` differs at every start."""

    boot_id: str
    hostname: str
    pid: int
    host: str
    port: int
    started_at: datetime
    beat_at: datetime


class Snapshot(_Value):
    """The whole registry, keys excepted, as of one moment.

    `leases` is release id -> until when its slot is wanted; `steps` counts transitions by public name and new state.
    """

    generation: int
    releases: tuple[Release, ...]
    slots: tuple[SlotInfo, ...]
    leases: Mapping[str, datetime]
    steps: Mapping[tuple[str, State], int]

    @property
    def champions(self) -> dict[str, Release]:
        """Public name -> the release in production."""
        return {release.public_name: release for release in self.releases if release.state is State.LIVE}
