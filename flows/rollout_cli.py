"""`tunegate promote`, `tunegate rollback` and `tunegate rollout …`: the traffic of a public name, from a shell."""

import json
from datetime import timedelta
from typing import Annotated

import typer

from flows.display import Display, make_console, plain

rollout_app = typer.Typer(no_args_is_help=True, help="Look at a promotion by steps, hold it, or stop it.")
console = make_console()

PublicName = Annotated[str, typer.Argument(metavar="PUBLIC_NAME", help="the model name callers use, e.g. clinic")]
ReleaseId = Annotated[str, typer.Argument(metavar="RELEASE", help="e.g. clinic-2; tunegate releases lists them")]
Actor = Annotated[str, typer.Option("--as", help="your name; it is kept in the history")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the `tunegate` command."""
    app.command()(promote)
    app.command()(rollback)
    app.add_typer(rollout_app, name="rollout")


def promote(release: ReleaseId, as_name: Actor, as_json: AsJson = False) -> None:
    """Give an approved release the traffic, by the steps of its recipe. Ends when it is live (0) or was taken back (3)."""
    from flows.approval import promote_release
    from serving.settings import load_settings

    live = promote_release(load_settings(), release, as_name)
    _said(as_json, live.model_dump(mode="json"), f"[green]✓[/] {live.id} is {live.state}")


def rollback(
    public_name: PublicName,
    as_name: Actor,
    reason: Annotated[str, typer.Option(help="why")] = "rolled back by hand",
    at_once: Annotated[bool, typer.Option("--at-once", help="do not wait until the release to go back to is ready")] = False,
    as_json: AsJson = False,
) -> None:
    """Take back the last change: end a canary, or put the champion before this one back; at once while its slot is warm."""
    from flows.rollout import go_back
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    settings = load_settings()
    with open_registry(settings) as registry:
        if at_once:
            champion = registry.rollback(public_name, as_name, reason)
        else:
            with Display(make_console(stderr=True)).stage("roll back") as shown:
                champion = go_back(settings, registry, public_name, as_name, reason, shown.report)
    _said(as_json, champion.model_dump(mode="json"), f"[green]✓[/] {champion.id} is {champion.state} again")


@rollout_app.command()
def status(
    public_name: Annotated[
        str | None, typer.Argument(metavar="PUBLIC_NAME", help="only this name, its last rollout if none goes on")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How far each promotion is, what its last look has found, and how each step ended."""
    from flows import rollout
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        found = rollout.describe(registry, public_name)
    typer.echo(json.dumps(found, indent=2)) if as_json else rollout.show(console, found)


@rollout_app.command()
def pause(public_name: PublicName, as_json: AsJson = False) -> None:
    """Stay at this step. A canary that fails is rolled back all the same."""
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        paused = registry.rollouts.pause(public_name)
    _said(as_json, paused.model_dump(mode="json"), f"{paused.release_id} stays at {paused.share * 100:g} %")


@rollout_app.command()
def resume(public_name: PublicName, as_json: AsJson = False) -> None:
    """Go on from the step at which it was paused."""
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        resumed = registry.rollouts.resume(public_name)
    _said(as_json, resumed.model_dump(mode="json"), f"{resumed.release_id} goes on at {resumed.share * 100:g} %")


@rollout_app.command()
def abort(
    public_name: PublicName, as_name: Actor, reason: Annotated[str, typer.Option(help="why")] = "aborted by hand", as_json: AsJson = False
) -> None:
    """Give all the traffic back to the champion; the release stays approved and may be promoted again."""
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        release = registry.rollouts.abort(public_name, as_name, reason)
    _said(as_json, release.model_dump(mode="json"), f"{release.id} is {release.state} again, and gets no traffic")


@rollout_app.command()
def shadow(
    release: ReleaseId,
    as_name: Actor,
    seconds: Annotated[float, typer.Option("--for", min=0, help="seconds; 0 ends it")] = 600.0,
) -> None:
    """Ask a release what the champion is asked, for a while; no caller gets its answers."""
    from flows.serving_control import open_registry
    from serving.registry import utc_now
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        if seconds == 0:
            registry.rollouts.end_shadow(registry.release(release).public_name)
        else:
            registry.rollouts.shadow(release, utc_now() + timedelta(seconds=seconds), as_name)
    console.print(f"{plain(release)} is {'no shadow any more' if seconds == 0 else f'a shadow for {seconds:g} s'}", highlight=False)


def _said(as_json: bool, value: object, line: str) -> None:
    typer.echo(json.dumps(value, indent=2)) if as_json else console.print(line, highlight=False)
