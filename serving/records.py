"""What the registry hands out: frozen values, whole at the moment they were read.

Knows nothing of SQL. Next: `registry.py`.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from serving.config import ServingSection
from serving.lifecycle import State

LEASE_S = 10.0
"""Seconds for which a canary is given its share at a time; a controller that lives renews it long before."""


class SlotState(StrEnum):
    """What an engine is doing. Only a ready one gets traffic; a waiting one has no place beside those that run."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"


class RolloutStatus(StrEnum):
    """What is happening with a promotion by steps. The last three are ends."""

    RUNNING = "running"
    PAUSED = "paused"
    WATCHING = "watching"
    DONE = "done"
    WITHDRAWN = "withdrawn"
    ROLLED_BACK = "rolled_back"


ENDS = (RolloutStatus.DONE, RolloutStatus.WITHDRAWN, RolloutStatus.ROLLED_BACK)


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
    previous_sha256: str
    sha256: str


class SlotInfo(_Value):
    """What the server last said about a release's engine. `reason` tells why it is not ready.

    `base_url` is the root of the engine's HTTP server, without `/v1`, None before it is known; `served_name` is what the engine calls the
    model. An engine that somebody else runs has no `pid`.
    """

    release_id: str
    state: SlotState
    base_url: str | None
    served_name: str
    pid: int | None
    restarts: int
    reason: str
    updated_at: datetime


class SlotLease(_Value):
    """A wish for a slot, for `seconds` from when it is seen; `until` is when that is by the clock of whoever asked."""

    id: int
    seconds: float
    until: datetime


class ServerInfo(_Value):
    """The one server that looks after this registry. `boot_id` differs at every start."""

    boot_id: str
    hostname: str
    pid: int
    host: str
    port: int
    started_at: datetime
    beat_at: datetime


class StepVerdict(_Value):
    """How one step of a rollout ended. `share` is the part of the traffic that the release had in it."""

    share: float
    outcome: str
    reason: str
    at: datetime


class Rollout(_Value):
    """One promotion by steps: `share` of the traffic goes to `release_id` until `lease_until`, the rest to `champion_id`.

    `fence` grows with each change, and each change names the fence it saw: of two who act at once, one is refused.
    While WATCHING the release is live and the champion before it stays ready to come back.
    """

    id: int
    public_name: str
    release_id: str
    champion_id: str
    status: RolloutStatus
    step: int
    share: float
    lease_until: datetime
    fence: int
    failures: int
    errors: int
    outcome: str | None
    reason: str
    verdicts: tuple[StepVerdict, ...]
    baseline: Mapping[str, Any] | None
    actor: str
    started_at: datetime
    step_at: datetime
    ended_at: datetime | None


class Canary(_Value):
    """A release that takes `share` (0-1) of its public name's traffic, until the lease ends."""

    release_id: str
    share: float
    lease_until: datetime


class Shadow(_Value):
    """A release that is asked what the champion is asked, and whose answers nobody gets."""

    release_id: str
    until: datetime


class Tally(_Value):
    """What one gateway worker has counted of one release since it began, as `rollout_counts.Counts` writes itself."""

    worker: str
    release_id: str
    counts: Mapping[str, Any]
    at: datetime


class Snapshot(_Value):
    """The whole registry, keys excepted, as of one moment.

    `leases` is release id -> the wishes for its slot, ended ones included until somebody forgets them; `steps` counts transitions
    by public name and new state.
    `canaries` and `shadows` are by public name; `rollouts` are those that have not ended, `ended` counts the others by
    public name, end and outcome.
    """

    generation: int
    releases: tuple[Release, ...]
    slots: tuple[SlotInfo, ...]
    leases: Mapping[str, tuple[SlotLease, ...]]
    steps: Mapping[tuple[str, State], int]
    canaries: Mapping[str, Canary] = {}
    shadows: Mapping[str, Shadow] = {}
    rollouts: tuple[Rollout, ...] = ()
    ended: Mapping[tuple[str, RolloutStatus, str], int] = {}

    @property
    def champions(self) -> dict[str, Release]:
        """Public name -> the release in production."""
        return {release.public_name: release for release in self.releases if release.state is State.LIVE}
