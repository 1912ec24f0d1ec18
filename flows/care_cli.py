"""`tunegate doctor` and `tunegate prune`: is everything well, and what may go."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from flows.display import make_console, plain
from flows.errors import DONE, FAILED

console = make_console()
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]
_SIGNS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "fault": "[red]✗[/]"}
_GB = 1e9
_MB = 1_000_000


def add_to(app: typer.Typer) -> None:
    """Add these commands to the `tunegate` command."""
    app.command()(doctor)
    app.command()(prune)


def doctor(
    prometheus: Annotated[str, typer.Option(help="address of the Prometheus that should answer")] = "",
    thorough: Annotated[bool, typer.Option(help="also import the engine, which takes up to minutes")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at the installation, GPU, port, disk, registry, keys, clock, base models; say what to do. Ends with 1 if anything is wrong."""
    from flows.doctor import Place, examine
    from serving.settings import load_settings

    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    found = examine(Place(settings, prometheus_url=prometheus, thorough=thorough))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    for each in found if not as_json else ():
        do = f"; {plain(each.do)}" if each.do else ""
        console.print(f"{_SIGNS[each.mark]} {each.check:<13} {plain(each.said)}{do}", highlight=False, soft_wrap=True)
    raise typer.Exit(FAILED if any(each.mark == "fault" for each in found) else DONE)


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
    keep: Annotated[int, typer.Option(min=1, help="how many of the newest folders of each stage stay in any case")] = 2,
    budget_gb: Annotated[
        float | None, typer.Option("--budget", min=0.001, help="GB that everything may take: the oldest goes first, and nothing below it")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove old runs and stored models that nothing needs. Champions, their predecessors and all that waits or runs keep everything."""
    import getpass

    from flows.pruning import prune as remove
    from flows.serving_control import open_registry
    from serving.artefact_store import store_of
    from serving.settings import load_settings

    settings = load_settings()
    with open_registry(settings) as registry:
        budget, who = None if budget_gb is None else budget_gb * _GB, getpass.getuser()
        found = remove(settings.home, registry, keep, who, dry_run=dry_run, budget_bytes=budget, store=store_of(settings))
    if as_json:
        rows = [{"path": str(each.path), "size_bytes": each.size_bytes, "why": each.why} for each in found]
        typer.echo(json.dumps({"dry_run": dry_run, "removed": rows}, indent=2))
        return
    for each in found:
        console.print(f"{each.size_bytes / _MB:>9.1f} MB  {plain(str(each.path))}  {each.why}", highlight=False, soft_wrap=True)
    freed = sum(each.size_bytes for each in found) / _MB
    console.print(f"{'would free' if dry_run else 'freed'} {freed:.1f} MB in {len(found)} places", highlight=False)
