"""`tunegate deploy` registers what runs by itself; `tunegate hooks` hears from outside; `tunegate backup` and `restore`.

Next: `deployments.py` for the file, `registering.py` for the server, `hooks.py`, `backup.py`.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.display import make_console, plain

DEFAULT_FILE = Path("deploy/prefect.yaml")
console = make_console()


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this file beside the others."""
    for command in (deploy, hooks, backup, restore):
        app.command()(command)


def deploy(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="the deployments, in Prefect's format")] = DEFAULT_FILE,
    gpus: Annotated[int, typer.Option(min=1, max=1024, help="trainings at the same time: one for each GPU")] = 1,
    check: Annotated[bool, typer.Option("--check", help="read the file and say what it means; register nothing")] = False,
) -> None:
    """Have Prefect run the flows by schedule and by event, with limits. Needs PREFECT_API_URL; a worker does the work."""
    from flows.container_paths import for_containers
    from flows.deployments import read_deployments
    from flows.registering import Environments, Limits, register
    from serving.settings import load_settings

    settings, read = load_settings(), read_deployments(file)
    if check:
        names = tuple(f"{deployment.flow.name}/{deployment.name}" for deployment in read.deployments)
    else:
        names = register(read, Limits(training=gpus), Environments({"TUNEGATE_HOME": str(settings.home)}, for_containers(settings)))
    for name, deployment in zip(names, read.deployments, strict=True):
        starts = [schedule.in_words() for schedule in deployment.schedules]
        starts += [f"on {', '.join(trigger.expect)}, debounced {trigger.within:g} s" for trigger in deployment.triggers]
        mark = "  " if check else "[green]✓[/]"
        console.print(f"{mark} {plain(name)}: {plain('; '.join(starts) or 'by hand')}", highlight=False, soft_wrap=True)
        for parameter in deployment.unread:
            path = plain(str(deployment.files[parameter]))
            console.print(
                f"[yellow]![/] {plain(name)}: {parameter} {path} lies on a volume: not read here", highlight=False, soft_wrap=True
            )
    if not check:
        for pool, kind in sorted({(each.work_pool.name, each.work_pool.type) for each in read.deployments}):
            hint = "  (with the same TUNEGATE_HOME)" if kind == "process" else ""
            console.print(f"  next      prefect worker start --pool {pool} --type {kind}{hint}", highlight=False)


def hooks(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port")] = 8090,
) -> None:
    """Hear alerts from Alertmanager and news of data, and tell Prefect. Callers need a key with the scope `admin`."""
    from flows.hooks import serve_hooks
    from serving.settings import load_settings

    serve_hooks(load_settings(), host, port)


def backup(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where the backup is put; must not exist")],
) -> None:
    """Copy the registry and everything its releases rest on, with the digest of every file. Safe while the server runs."""
    from flows.backup import make_backup
    from serving.settings import load_settings

    made = make_backup(load_settings(), folder)
    console.print(f"[green]✓[/] {len(made.files)} files, {made.bytes / 1e9:.2f} GB in {plain(str(folder))}", highlight=False)


def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a backup that `tunegate backup` made")],
) -> None:
    """Put a backup into an empty TUNEGATE_HOME, after every digest has been checked."""
    from flows.backup import restore_backup
    from serving.settings import load_settings

    settings = load_settings()
    restored = restore_backup(settings, folder)
    console.print(f"[green]✓[/] {len(restored.files)} files are back in {plain(os.fspath(settings.home))}", highlight=False)
