"""Approving a waiting release and promoting an approved one, from outside a run. Next: `promotion.py`."""

import getpass
import socket
from contextlib import nullcontext

from flows.own_prefect import begin
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
    prefect = begin(settings)
    from flows.pipeline import promote

    with open_registry(settings) as registry:
        ensure_server(settings, registry)
    with prefect.in_use() if prefect else nullcontext():
        return promote(release_id, actor)
