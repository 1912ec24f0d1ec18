"""`tunegate review`: make, serve, watch, close and export a blind review. Parses, calls, prints. Next: `reviewing.py`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.display import make_console, plain
from flows.errors import DONE, NOT_PASSED

review_app = typer.Typer(no_args_is_help=True, help="Blind review: people compare both models' answers without knowing whose they are.")
console = make_console()

_DEFAULT_PORT = 8090
ReleaseId = Annotated[str, typer.Argument(metavar="RELEASE", help="the judged candidate, e.g. clinic-2")]
Against = Annotated[str | None, typer.Option(help="another judged release; by default the champion it was judged against")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="TCP port of the page, on this machine only")]


@review_app.command("create")
def create(
    release: ReleaseId,
    reviewer: Annotated[list[str], typer.Option(help="name of a reviewer; give it once for each")],
    n: Annotated[int, typer.Option("--n", min=1, help="prompts to draw, by topic; those with the same answer twice are left out")] = 100,
    against: Against = None,
    port: Port = _DEFAULT_PORT,
) -> None:
    """Draw a blinded, balanced sample, seal its key, and print one link per reviewer. The links are shown once and kept nowhere."""
    from flows.reviewing import create_review
    from serving.settings import load_settings

    drawn = create_review(load_settings().home, release, reviewer, n, against)
    review = drawn.review
    console.print(
        f"[green]✓[/] {len(review.pairs)} of {review.prompts} prompts drawn ({review.identical} have the same answer twice); "
        f"key sealed as {review.key_sha256[:12]}",
        highlight=False,
        soft_wrap=True,
    )
    for name, token in drawn.tokens.items():
        typer.echo(f"{name}\thttp://127.0.0.1:{port}/#{token}")
    console.print(
        f"next: tunegate review serve {plain(release)}" + (f" --port {port}" if port != _DEFAULT_PORT else ""),
        highlight=False,
        soft_wrap=True,
    )


@review_app.command("serve")
def serve(release: ReleaseId, port: Port = _DEFAULT_PORT, against: Against = None) -> None:
    """Serve the review's page on this machine until Ctrl-C. Every vote is on the disk before the page moves on."""
    import uvicorn

    from evaluation.review_app import create_review_app
    from evaluation.review_votes import VoteBook
    from flows.reviewing import under_review
    from serving.gateway_front import listen
    from serving.settings import load_settings

    under = under_review(load_settings().home, release, against)
    app = create_review_app(under.review, VoteBook(under.folder), ("127.0.0.1", "localhost"))
    with listen("127.0.0.1", port) as listener:
        console.print(
            f"review of {plain(release)} at http://127.0.0.1:{port}; open the links that `create` printed", highlight=False, soft_wrap=True
        )
        config = uvicorn.Config(app, access_log=False, server_header=False, log_level="warning", ws="none", lifespan="off")
        uvicorn.Server(config).run(sockets=[listener])


@review_app.command("status")
def status(
    release: ReleaseId, against: Against = None, as_json: Annotated[bool, typer.Option("--json", help="print JSON for scripts")] = False
) -> None:
    """How far each reviewer is, and, once it is closed, what came out."""
    from flows.reviewing import progress_of, under_review
    from serving.settings import load_settings

    under = under_review(load_settings().home, release, against)
    review, result, progress = under.review, under.result, progress_of(under)
    if as_json:
        body = {"release": release, "against": review.against, "pairs": len(review.pairs), "judged": progress, "folder": str(under.folder)}
        outcome = result.model_dump(mode="json", exclude={"votes"}) if result else None
        typer.echo(json.dumps(body | {"key_sha256": review.key_sha256, "result": outcome}, indent=2, ensure_ascii=False))
        return
    for name, done in progress.items():
        console.print(f"  {plain(name):<20} {done} of {len(review.pairs)}", highlight=False, soft_wrap=True)
    if result:
        agreed = "" if result.agreement is None else f", agreement {result.agreement:.0%}"
        console.print(
            f"closed by {plain(result.closed_by)}: {result.wins} won, {result.losses} lost, {result.ties} ties{agreed}", highlight=False
        )
    elif all(done == len(review.pairs) for done in progress.values()):
        console.print(f"every vote is in: tunegate review close {plain(release)} --as NAME", highlight=False, soft_wrap=True)


@review_app.command("close")
def close(
    release: ReleaseId,
    as_name: Annotated[str, typer.Option("--as", help="your name; it is kept with the result")],
    without: Annotated[list[str] | None, typer.Option(help="a reviewer who did not finish and is left out")] = None,
    against: Against = None,
) -> None:
    """Open the key once every vote is in, count, and have the gate decide again."""
    from flows.display import Display
    from flows.reviewing import close_review_of, decide_again
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    settings = load_settings()
    result = close_review_of(settings.home, release, as_name, without or [], against)
    console.print(f"[green]✓[/] closed: {result.wins} won, {result.losses} lost, {result.ties} ties", highlight=False, soft_wrap=True)
    with open_registry(settings) as registry:
        judged = decide_again(settings, registry, Display(console), release, as_name)
    if judged is None:
        console.print(
            f"{plain(release)} is not decided again: it no longer waits, or the champion has changed since", highlight=False, soft_wrap=True
        )
        return
    for condition in judged.verdict.conditions:
        if condition.name == "human_review":
            console.print(f"  {condition.outcome} {plain(condition.sentence)}", highlight=False, soft_wrap=True)
    console.print(f"verdict on {judged.release.id}: {judged.verdict.outcome}, now {judged.release.state}", highlight=False, soft_wrap=True)
    raise typer.Exit(DONE if judged.verdict.promotes else NOT_PASSED)


@review_app.command("export")
def export(
    release: ReleaseId,
    csv: Annotated[Path, typer.Option(help="file to write")],
    against: Against = None,
) -> None:
    """Write the votes as CSV; before the close without saying which model they are for."""
    from flows.reviewing import export_csv, under_review
    from serving.settings import load_settings
    from training.atomic import write_text

    write_text(csv, export_csv(under_review(load_settings().home, release, against)), mode=0o600)
    console.print(f"[green]✓[/] {plain(str(csv))}", highlight=False, soft_wrap=True)
