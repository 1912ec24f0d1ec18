"""`tunegate sign`: what becomes of the files of a release that is there already."""

from typing import Annotated

import typer

from flows.display import make_console, plain

console = make_console()
ReleaseId = Annotated[str, typer.Argument(metavar="RELEASE", help="e.g. clinic-2; tunegate releases lists them")]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    app.command()(sign)


def sign(release: ReleaseId) -> None:
    """Sign a release's model with TUNEGATE_SIGNING_KEY: one from before there was a key, or signed with an older one."""
    from flows.serving_control import open_registry
    from flows.signatures import sign_release
    from serving.settings import load_settings

    settings = load_settings()
    with open_registry(settings) as registry:
        signature = sign_release(settings, registry.release(release))
    console.print(f"[green]✓[/] {release} is signed: {plain(str(signature))}", highlight=False, soft_wrap=True)
