"""Sees to it that a server runs and that a slot is ready, and waits no longer than it must.

The server is a process of its own that outlives the run which started it: production must not depend on a training job.
Next: `pipeline.py`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import psutil

from evaluation.client import Endpoint
from flows.errors import NoRoom, ServingFailed, SlotEnded
from serving.errors import RegistryError
from serving.lifecycle import State
from serving.records import Release, ServerInfo, SlotInfo, SlotState
from serving.registry import Registry, utc_now
from serving.settings import Settings
from serving.slot_folder import read_key
from training.progress import Progress, Report

T = TypeVar("T")
SERVE_LOG = "serve.log"
_POLL_S = 0.3
_SERVER_START_S = 90.0
_TAIL_LINES = 12


def ensure_server(settings: Settings, registry: Registry) -> ServerInfo:
    """The live server of this registry; starts one in the background where none runs.

    Raises:
        ServingFailed: it did not come up; the end of its log is shown. Or there is none, and this run may start none.
    """
    if (server := registry.server()) is not None:
        return server
    if not settings.start_server:
        raise ServingFailed(
            "no server lives at this registry",
            why="a server that this run started would end with its container (TUNEGATE_START_SERVER is false)",
            do="start tunegate serve where production is to be, with the same TUNEGATE_REGISTRY_URL",
        )
    settings.home.mkdir(parents=True, exist_ok=True)
    log_path = settings.home / SERVE_LOG
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=_environment(settings),
        )

    def up() -> ServerInfo | None:
        server = registry.server()
        # One that lost a race against another run's server has ended, too; theirs will do.
        if server is None and (status := process.poll()) is not None:
            raise ServingFailed(f"the server ended with status {status}:\n{_tail(log_path)}", do=f"read {log_path}")
        return server

    return _wait(up, _SERVER_START_S, lambda: f"no server after {_SERVER_START_S:.0f} s:\n{_tail(log_path)}")


def stop_server(registry: Registry, timeout_s: float) -> ServerInfo | None:
    """Ask the live server to drain and stop, and wait for it; None when there is none.

    Raises:
        ServingFailed: it runs on another machine, or did not stop in time.
    """
    server = registry.server()
    if server is None:
        return None
    try:
        process = psutil.Process(server.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout_s)
    except psutil.NoSuchProcess:
        return server
    except psutil.TimeoutExpired:
        raise ServingFailed(
            f"server {server.pid} still drains after {timeout_s:.0f} s", do="try again, or end it by its process id"
        ) from None
    return server


def start_slot(registry: Registry, settings: Settings, release: Release, lease_s: float, report: Report) -> Endpoint:
    """Have a release running for `lease_s` seconds, and wait until it has answered a real request.

    Raises:
        NoRoom: there is no place for it beside the engines that run.
        ServingFailed: no server, or the slot failed; the reason is the supervisor's.
    """
    ensure_server(settings, registry)
    registry.want_slot(release.id, utc_now() + timedelta(seconds=lease_s))
    return wait_for_slot(registry, settings, release, report)


def wait_for_slot(registry: Registry, settings: Settings, release: Release, report: Report) -> Endpoint:
    """Wait until the release's slot is ready; see `start_slot`."""
    began = time.monotonic()

    def ready() -> SlotInfo | None:
        slot = next((each for each in registry.slots() if each.release_id == release.id), None)
        report(Progress(int(time.monotonic() - began), 0, "s", slot.reason if slot else "waiting for the server"))
        if slot is not None and slot.state is SlotState.FAILED:
            # What was never started is not started again before somebody mends its files.
            raise (SlotEnded if slot.restarts else ServingFailed)(
                f"the slot of {release.id} failed: {slot.reason}",
                why="a model that does not start is not judged and not promoted",
                do=f"read {settings.slot_folder(release.id) / 'vllm.log'}",
            )
        # A champion gets its place; the others have stopped by then.
        if slot is not None and slot.state is SlotState.WAITING and release.state is not State.LIVE:
            raise NoRoom(
                f"{release.id} cannot run now: {slot.reason}",
                why="the release in production is not stopped for one that is not",
                do="have it served where there is more memory, or say `serving.change: recreate` in its recipe: then it takes the "
                "champion's place while it is judged, and callers wait",
            )
        return slot if slot is not None and slot.state is SlotState.READY else None

    slot = _wait(ready, settings.start_timeout_s, lambda: f"the slot of {release.id} was not ready after {settings.start_timeout_s:.0f} s")
    report(Progress(1, 1, "slot", f"{release.id} answers at {slot.base_url}"))
    return endpoint_of(settings, release, slot)


def endpoint_of(settings: Settings, release: Release, slot: SlotInfo) -> Endpoint:
    """How to talk to a ready slot directly, past the gateway."""
    key = read_key(settings.slot_folder(release.id))
    if slot.base_url is None or key is None:
        raise SlotEnded(f"the slot of {release.id} stopped while it was being asked", do="run the recipe again")
    return Endpoint(base_url=slot.base_url, api_key=key, model=slot.served_name)


def open_registry(settings: Settings) -> "closing[Registry]":
    """The registry, to be used in a `with` block."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return closing(Registry(settings.database_url))


def _wait(look: Callable[[], T | None], timeout_s: float, failure: Callable[[], str]) -> T:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if (found := look()) is not None:
                return found
        except RegistryError:  # busy for longer than its own patience: look again until the deadline
            pass
        time.sleep(_POLL_S)
    raise ServingFailed(failure(), do="tunegate status shows the slots; their logs say why")


def _environment(settings: Settings) -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "TUNEGATE_HOME": str(settings.home)}


def _tail(path: Path) -> str:
    return "\n".join(f"    {line}" for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
