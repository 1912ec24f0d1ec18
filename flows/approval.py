"""Approving a waiting release and promoting an approved one, from outside a run. Next: `promotion.py`."""

import getpass
import os
import socket
from pathlib import Path

from flows.serving_control import ensure_server, open_registry
from serving.approval_terms import Signer
from serving.errors import EvidenceMismatch
from serving.lifecycle import State
from serving.records import Release
from serving.registry import Registry
from serving.settings import Settings


def this_account() -> str:
    """The account of this machine that vouches for a name given on a command line."""
    return f"os:{getpass.getuser()}@{socket.gethostname()}"


def approve_release(
    registry: Registry, release_id: str, name: str, comment: str, digest: str | None, *, account: str = "", emergency: str | None = None
) -> Release:
    """Sign what was submitted; with `digest`, only if the evidence digest starts with it; with `emergency`, alone and for that reason.

    Raises:
        EvidenceMismatch: it does not.
        TransitionRefused: the release does not wait for an approval.
    """
    release = registry.release(release_id)
    evidence = release.evidence_digest or ""
    if digest is not None and not (digest and evidence.startswith(digest)):
        raise EvidenceMismatch(
            f"{release_id} was submitted with evidence {evidence[:12] or '(none)'}, not {digest[:12]}",
            why="you would approve something else than you have seen",
            do=f"tunegate show {release_id}",
        )
    if release.state is State.APPROVED:
        return release  # approved before, promoted now
    if emergency is not None:
        return registry.approvals.override(release_id, evidence, Signer(name, account), emergency)
    return registry.approve(release_id, evidence, name, comment, account)


def promote_release(settings: Settings, release_id: str, actor: str) -> Release:
    """Run the `promote` flow for an approved release."""
    use_own_prefect(settings)
    from flows.pipeline import promote

    with open_registry(settings) as registry:
        ensure_server(settings, registry)
    return promote(release_id, actor)


def use_own_prefect(settings: Settings) -> None:
    """Without a Prefect server of the user's, run the flows on an ephemeral one with its database in our home."""
    os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect"))
    # Prefect makes this folder, but not the one above it.
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    # Prefect 3.7 looks for this file below the user's own home, whatever PREFECT_HOME says, and warns where that has no `.prefect`.
    os.environ.setdefault("PREFECT_SERVER_MEMO_STORE_PATH", str(Path(os.environ["PREFECT_HOME"]) / "memo_store.toml"))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # The default of 20 s is too short for a machine that is also loading a model.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
