"""`tunegate sign` and `tunegate export`: what becomes of the files of a release that is there already."""

from pathlib import Path
from typing import Annotated

import typer

from flows.display import make_console, plain

console = make_console()
ReleaseId = Annotated[str, typer.Argument(metavar="RELEASE", help="e.g. clinic-2; tunegate releases lists them")]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    app.command()(sign)
    app.command()(export)


def sign(release: ReleaseId) -> None:
    """Sign a release's model with TUNEGATE_SIGNING_KEY: one from before there was a key, or signed with an older one."""
    from flows.serving_control import open_registry
    from flows.signatures import sign_release
    from serving.settings import load_settings

    settings = load_settings()
    with open_registry(settings) as registry:
        signature = sign_release(settings, registry.release(release))
    console.print(f"[green]✓[/] {release} is signed: {plain(str(signature))}", highlight=False, soft_wrap=True)


def export(
    release: ReleaseId,
    to: Annotated[str, typer.Option(help="adapter, safetensors, gguf, gguf-q8_0 or fp8; awq and gptq say what they need")],
    out: Annotated[Path | None, typer.Option(help="folder that is made; by default RELEASE-FORM here")] = None,
) -> None:
    """Write a release's model for another tool: its adapter, its safetensors with record and signature, GGUF, or FP8."""
    from flows.exporting import export_release
    from flows.serving_control import open_registry
    from serving.settings import load_settings
    from training.export import require_form

    form, settings = require_form(to), load_settings()
    with open_registry(settings) as registry:
        found = registry.release(release)
    folder = export_release(settings, found, form, (out or Path(f"{release}-{form}")).absolute())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    console.print(f"[green]✓[/] {release} as {form}: {plain(str(folder))}, {size / 1e6:.1f} MB", highlight=False, soft_wrap=True)
