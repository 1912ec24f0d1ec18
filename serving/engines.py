"""Who runs a release's engine: this server, as a process of its own, or somebody else. The seam behind which the supervisor does not look.

Next: `slots.py`, `outside_engine.py`.
"""

from collections.abc import Callable
from typing import Protocol, assert_never

from serving.artefact import verify_artefact
from serving.artefact_store import bring
from serving.outside_engine import OutsideEngine
from serving.records import Release
from serving.settings import Settings
from serving.slots import EngineCommand, SlotProcess

Command = Callable[[Release, int], EngineCommand]
"""(release, port) -> the engine to run."""


class Engine(Protocol):
    """One life of an engine: started, ready, ended or stopped, in this order."""

    release_id: str

    @property
    def base_url(self) -> str:
        """Root of its HTTP server, without `/v1`; known once it is started."""
        ...

    @property
    def served_name(self) -> str:
        """What it calls the model."""
        ...

    @property
    def pid(self) -> int | None:
        """Its process here, if it is one."""
        ...

    async def start(self) -> None:
        """Begin; raises SlotError."""
        ...

    async def ready(self) -> None:
        """Wait for a real answer; raises SlotError."""
        ...

    async def ended(self) -> str:
        """Wait for it to end by itself; returns what was seen."""
        ...

    async def stop(self, drain_s: float) -> None:
        """End it, after what it is answering."""
        ...


def engine_for(release: Release, settings: Settings, command: Command) -> Engine:
    """A new life of the release's engine, not yet begun."""
    match release.serving.engine:
        case "vllm":
            folder = settings.slot_folder(release.id)
            limits = {"start_timeout_s": settings.start_timeout_s, "silent_s": settings.silent_s}
            return SlotProcess(release.id, folder, lambda port: command(release, port), **limits)
        case "outside":
            return OutsideEngine(release, settings)
        case _:
            assert_never(release.serving.engine)


def verify_before_start(release: Release, settings: Settings) -> None:
    """Hold what is about to be served against its record, and against a signature where a public key is given; fetched first if need be.

    The files here say nothing of what somebody else has loaded.

    Raises:
        RecordError: it is not what was judged, or nobody vouches for it.
        StoreError: it is not here, and cannot be had now.
    """
    if release.serving.engine == "vllm":
        bring(settings, release)
        verify_artefact(release, settings.verify_key)
