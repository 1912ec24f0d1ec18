"""`tunegate keys`: make, list, rotate and revoke the API keys of the gateway. Next: `serving/keys.py`."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from flows.display import make_console

keys_app = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke the API keys of the gateway.")
console = make_console()

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="the id that `keys list` prints")]


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="who will use it")],
    scope: Annotated[list[str] | None, typer.Option(help="infer, admin or approve; may be given several times")] = None,
    days: Annotated[float | None, typer.Option(min=0.001, max=36_500, help="days until it expires; without it, it does not")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="most requests a minute")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="most tokens a minute, prompts and answers")] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="most requests at a time")] = None,
) -> None:
    """Make a key. Its secret is printed once and kept nowhere."""
    from flows.serving_control import open_registry
    from serving.keys import KeyTerms, Scope
    from serving.settings import load_settings
    from training.errors import InputError

    unknown = sorted(set(scope or []) - {each.value for each in Scope})
    if unknown:
        raise InputError(f"unknown scope {', '.join(unknown)}", do=f"choose from {', '.join(each.value for each in Scope)}")
    terms = KeyTerms(
        expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        max_concurrent=max_concurrent,
    )
    with open_registry(load_settings()) as registry:
        info, secret = registry.create_key(name, [Scope(each) for each in scope or ["infer"]], terms)
    typer.echo(f"{info.id}\t{secret.get_secret_value()}")


@keys_app.command("rotate")
def rotate_key(
    key_id: KeyId,
    overlap_hours: Annotated[float, typer.Option(min=0, max=8_760, help="hours for which the old key still opens the gateway")] = 24.0,
) -> None:
    """Make a key with the same name, scopes and limits; the old one ends after the overlap. The new secret is printed once."""
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        info, secret = registry.rotate_key(key_id, timedelta(hours=overlap_hours))
    typer.echo(f"{info.id}\t{secret.get_secret_value()}")


@keys_app.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="print JSON for scripts")] = False) -> None:
    """Every key that was ever made; the secrets are not known."""
    from flows import views
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        found = registry.keys()
    typer.echo(json.dumps([key.model_dump(mode="json") for key in found], indent=2)) if as_json else views.show_keys(console, found)


@keys_app.command("revoke")
def revoke_key(key_id: KeyId) -> None:
    """Shut a key out for good; gateways follow within a second."""
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        registry.revoke_key(key_id)
    console.print(f"{key_id} is revoked", highlight=False)
