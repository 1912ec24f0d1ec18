"""`tunegate audit …`: who did what, taken elsewhere and proven whole."""

import csv
import json
import sys
from typing import Annotated

import typer

from flows.display import make_console, plain
from flows.errors import DONE, FAILED

audit_app = typer.Typer(no_args_is_help=True, help="Export the audit log, and look whether anything in it was changed.")
console = make_console()
_COLUMNS = ("seq", "at", "kind", "subject", "actor", "account", "reason", "evidence_digest", "facts", "previous_sha256", "sha256")


@audit_app.command()
def export(
    as_csv: Annotated[bool, typer.Option("--csv", help="comma-separated values instead of one JSON object a line")] = False,
    after: Annotated[int, typer.Option(min=0, help="only lines after this number")] = 0,
) -> None:
    """Print every line with its hashes: requests, signatures, overrides, steps of releases, runs."""
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        found = registry.approvals.lines(after=after)
    rows = [{name: getattr(line, name) for name in _COLUMNS} | {"at": line.at.isoformat(timespec="microseconds")} for line in found]
    if not as_csv:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
        return
    writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)


@audit_app.command()
def verify(
    noted: Annotated[list[str] | None, typer.Option(help="a head that was printed earlier; may be given several times")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for scripts")] = False,
) -> None:
    """Whether the audit log is what was written, and agrees with the history of releases. Note the head elsewhere."""
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        found, history = registry.approvals.verify(noted or []), registry.verify()
    faults = [*found.faults, *history.faults]
    if as_json:
        typer.echo(json.dumps({"lines": found.steps, "head": found.head, "faults": faults}, indent=2))
    else:
        for fault in faults:
            console.print(f"[red]✗[/] {plain(fault)}", highlight=False, soft_wrap=True)
        mark = "[red]✗[/]" if faults else "[green]✓[/]"
        console.print(f"{mark} {found.steps} lines, head {found.head}", highlight=False, soft_wrap=True)
    raise typer.Exit(FAILED if faults else DONE)


def _harmless(value: object) -> object:
    """A cell that a spreadsheet would run as a formula becomes text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
