"""`tunegate registry …`: bring the registry's tables up to date, and look whether its history is what was written."""

import json
from typing import Annotated

import typer

from flows.display import make_console, plain
from flows.errors import DONE, FAILED

registry_app = typer.Typer(no_args_is_help=True, help="Bring the registry up to date, and look whether it is whole.")
console = make_console()
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]


@registry_app.command()
def upgrade() -> None:
    """Make the tables, or bring them to the revision this version needs. Stop the server and back the database up before."""
    from serving.migrate import upgrade as bring_up_to_date
    from serving.settings import load_settings

    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    done = bring_up_to_date(settings.database_url.get_secret_value())
    said = f"was at {done.before or 'nothing'}, is" if done.before != done.after else "is already"
    console.print(f"[green]✓[/] {plain(done.name)} {said} at revision {done.after}", highlight=False, soft_wrap=True)


@registry_app.command()
def check() -> None:
    """Whether the tables are those that this version uses."""
    from serving.migrate import check as compare
    from serving.settings import load_settings

    name = compare(load_settings().database_url.get_secret_value())
    console.print(f"[green]✓[/] {plain(name)} has the tables that this version uses", highlight=False, soft_wrap=True)


@registry_app.command()
def verify(
    noted: Annotated[list[str] | None, typer.Option(help="a head noted earlier, elsewhere; may be given several times")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether the history is what was written, step by step. Note the head it prints elsewhere, and hold it against the history later."""
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        found = registry.verify(noted or [])
    if as_json:
        typer.echo(json.dumps({"steps": found.steps, "head": found.head, "faults": found.faults}, indent=2))
    else:
        for fault in found.faults:
            console.print(f"[red]✗[/] {plain(fault)}", highlight=False, soft_wrap=True)
        mark = "[red]✗[/]" if found.faults else "[green]✓[/]"
        console.print(f"{mark} {found.steps} steps, head {found.head}", highlight=False, soft_wrap=True)
    raise typer.Exit(FAILED if found.faults else DONE)
