"""How the registry looks in a terminal: tables for people, plain values for `--json`."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.display import plain
from serving.keys import KeyInfo
from serving.lifecycle import State
from serving.records import Release, Transition
from serving.registry import Registry

_SHOWN_DIGITS = 12


def status_of(registry: Registry) -> dict[str, Any]:
    """What runs and what waits, as plain values."""
    server, snapshot = registry.server(), registry.snapshot()
    return {
        "server": server.model_dump(mode="json") if server else None,
        "generation": snapshot.generation,
        "champions": {name: release.id for name, release in snapshot.champions.items()},
        "slots": [slot.model_dump(mode="json") for slot in snapshot.slots] if server else [],
        "waiting": [release.id for release in snapshot.releases if release.state in (State.AWAITING_APPROVAL, State.APPROVED)],
    }


def show_status(console: Console, state: dict[str, Any]) -> None:
    """`status_of` for people."""
    server = state["server"]
    where = (
        f"http://{server['host']}:{server['port']} (process {server['pid']}, since {server['started_at']})"
        if server
        else "none; start it: tunegate serve"
    )
    console.print(f"gateway     {where}", highlight=False)
    for name, champion in state["champions"].items():
        console.print(f"champion    {name}: {champion}", highlight=False)
    for slot in state["slots"]:
        console.print(
            f"slot        {slot['release_id']}: {slot['state']} {slot['base_url'] or ''} {plain(slot['reason'])}".rstrip(), highlight=False
        )
    for release in state["waiting"]:
        console.print(f"waiting     {release}: tunegate approve {release} --as NAME", highlight=False)
    if not state["champions"]:
        console.print("champion    none yet: tunegate run flows/recipes/demo.yaml", highlight=False)


def show_releases(console: Console, releases: Sequence[Release]) -> None:
    """One row per release."""
    table = Table("release", "state", "recipe", "model", "evidence", "requested by", "made", box=None, pad_edge=False)
    for release in releases:
        evidence = (release.evidence_digest or "–")[:_SHOWN_DIGITS]
        made = release.created_at.strftime("%Y-%m-%d %H:%M")
        table.add_row(
            release.id,
            release.state,
            plain(release.recipe_name),
            release.model_digest[:_SHOWN_DIGITS],
            evidence,
            plain(release.requester),
            made,
        )
    console.print(table)


def show_release(console: Console, release: Release, steps: Sequence[Transition]) -> None:
    """One release and its history."""
    facts = {
        "state": release.state,
        "recipe": release.recipe_name,
        "model": f"{release.model_digest}  {release.model_dir}",
        "evidence": release.evidence_digest or "–",
        "judged against": release.judged_against or "–",
        "report": str(release.report_path or "–"),
        "requested by": release.requester,
    }
    console.print(f"[bold]{release.id}[/]", highlight=False)
    for name, value in facts.items():
        console.print(f"  {name:<15}{plain(value)}", highlight=False, soft_wrap=True)
    for step in steps:
        arrow = f"{step.from_state or 'new'} → {step.to_state}"
        console.print(
            f"  {step.at:%Y-%m-%d %H:%M:%S}  {arrow:<34} {plain(step.actor)}  {plain(step.reason)}", highlight=False, soft_wrap=True
        )


def show_keys(console: Console, keys: Sequence[KeyInfo]) -> None:
    """One row per key."""
    table = Table("key", "name", "scopes", "limits", "made", "ends", box=None, pad_edge=False)
    for key in keys:
        ends = (
            f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else f"{key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "–"
        )
        table.add_row(key.id, plain(key.name), ", ".join(sorted(key.scopes)), _limits(key), f"{key.created_at:%Y-%m-%d %H:%M}", ends)
    console.print(table)


def _limits(key: KeyInfo) -> str:
    limits = ((key.requests_per_minute, "requests/min"), (key.tokens_per_minute, "tokens/min"), (key.max_concurrent, "at a time"))
    return ", ".join(f"{amount} {unit}" for amount, unit in limits if amount is not None) or "–"
