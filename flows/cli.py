"""The `tunegate` command. Parses, calls, prints; what it calls lives elsewhere. Exit codes: `flows/errors.py`.

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from flows.audit_cli import audit_app
from flows.care_cli import add_to as add_care_to
from flows.collect_cli import collect_app
from flows.deploy_cli import add_commands
from flows.display import Display, make_console, plain
from flows.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, REFUSED
from flows.folds import add_to as add_folds_to
from flows.gate_cli import gate_app
from flows.keys_cli import keys_app
from flows.registry_cli import registry_app
from flows.release_cli import add_to as add_release_to
from flows.review_cli import review_app
from flows.rollout_cli import add_to as add_rollout_to
from flows.rules_cli import rules_app
from training.disk import disk_faults_told
from training.errors import TunegateError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Fine-tune a model, judge it against the one in production, and replace it safely.

    A first tour:  [bold]tunegate run flows/recipes/demo.yaml[/]  trains, merges, serves, judges, asks for your approval and switches.

    Exit codes: 0 done · 1 failed · 2 wrong input, nothing started · 3 the verdict is not PASS · 4 refused · 130 stopped by Ctrl-C.
    Where things are kept: ./.tunegate, or TUNEGATE_HOME. Every TUNEGATE_ variable: serving/README.md.""",
)
app.add_typer(keys_app, name="keys")
data_app = typer.Typer(no_args_is_help=True, help="Look through data before it is trained on.")
app.add_typer(data_app, name="data")
app.add_typer(rules_app, name="rules")
app.add_typer(gate_app, name="gate")
app.add_typer(review_app, name="review")
app.add_typer(registry_app, name="registry")
app.add_typer(audit_app, name="audit")
app.add_typer(collect_app, name="collect")
add_care_to(app)
add_rollout_to(app)
add_commands(app)
add_release_to(app)
add_folds_to(app)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML file, e.g. flows/recipes/demo.yaml")]
ReleaseId = Annotated[str, typer.Argument(metavar="RELEASE", help="e.g. clinic-2; tunegate releases lists them")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]
console = make_console()


@app.command()
def run(
    recipe: RecipePath,
    approve_as: Annotated[str | None, typer.Option(help="approve under this name without asking, if the verdict is PASS")] = None,
) -> None:
    """Run the whole line: prepare, train, merge, serve, judge, approve, switch. Goes on where an earlier run stopped."""
    from flows.own_prefect import begin
    from flows.recipe import load_recipe
    from flows.stage_runner import warm_up
    from serving.settings import load_settings

    settings, name = load_settings(), load_recipe(recipe).name
    prefect = begin(settings)
    if not list((settings.home / "runs" / name).glob("merge-*/record.json")):
        warm_up(settings.home)  # a first run trains: what it needs is imported while this process imports what it needs itself
    from flows.delivery import deliver

    raise typer.Exit(deliver(recipe, approve_as, console, prefect=prefect, began=_began()))


def _began() -> float:
    """When this process started, by the monotonic clock."""
    import psutil

    return time.monotonic() - (time.time() - psutil.Process().create_time())


@app.command()
def plan(recipe: RecipePath, as_json: AsJson = False) -> None:
    """Say what a recipe will do, before any GPU hour: resolved values with reasons, steps, memory, and whether vLLM can serve it."""
    from flows.plan import make_plan, show_plan
    from flows.recipe import load_recipe

    made = make_plan(load_recipe(recipe))
    typer.echo(made.model_dump_json(indent=2)) if as_json else show_plan(console, made)


@app.command()
def validate(recipe: RecipePath) -> None:
    """Check a recipe, its data files, suites and rules; all faults at once, nothing is started."""
    from flows.plan import check_files
    from flows.recipe import load_recipe

    loaded = load_recipe(recipe)
    for line in check_files(loaded):
        console.print(f"[green]✓[/] {plain(line)}", highlight=False)
    console.print(f"{loaded.name}: nothing to complain about (recipe {loaded.digest[:12]})", highlight=False)


@app.command()
def serve(
    gateway_only: Annotated[bool, typer.Option("--gateway-only", help="one more gateway, beside the server of the registry")] = False,
) -> None:
    """Serve every champion in the foreground: supervisor, vLLM slots, gateway and metrics. Ctrl-C drains and stops.

    TUNEGATE_GATEWAY_WORKERS=N has N processes take callers; SIGHUP exchanges them one by one, without a loss.
    """
    from flows.prefect_events import prefect_outlets
    from serving.gateway_only import serve_callers
    from serving.server import serve as serve_until_stopped
    from serving.settings import load_settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = load_settings()
    if gateway_only:
        serve_callers(settings)
    else:
        settings.home.mkdir(parents=True, exist_ok=True)
        serve_until_stopped(settings, more_outlets=prefect_outlets(os.environ.get("PREFECT_API_URL")))


@app.command()
def stop() -> None:
    """Drain and stop the server that `run` started in the background."""
    from flows.serving_control import open_registry, stop_server
    from serving.settings import load_settings

    settings = load_settings()
    with open_registry(settings) as registry:
        server = stop_server(registry, settings.drain_s * 2 + 30)
    console.print(f"server {server.pid} stopped" if server else "no server runs", highlight=False)


@app.command()
def status(as_json: AsJson = False) -> None:
    """What is in production, what runs, and what waits for somebody."""
    from flows import views
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        state = views.status_of(registry)
    typer.echo(json.dumps(state, indent=2)) if as_json else views.show_status(console, state)


@app.command()
def releases(as_json: AsJson = False) -> None:
    """Every release with its state, newest last."""
    from flows import views
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        found = registry.releases()
    typer.echo(json.dumps([release.model_dump(mode="json") for release in found], indent=2)) if as_json else views.show_releases(
        console, found
    )


@app.command()
def show(release: ReleaseId, as_json: AsJson = False) -> None:
    """One release: its model, its evidence, and every step of its life."""
    from flows import views
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        found, steps = registry.release(release), registry.history(release)
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json") | {"history": [step.model_dump(mode="json") for step in steps]}, indent=2))
    else:
        views.show_release(console, found, steps)


@app.command()
def approve(
    release: ReleaseId,
    as_name: Annotated[str, typer.Option("--as", help="your name; it is kept with the approval")],
    comment: Annotated[str, typer.Option(help="why, for those who read the history later")] = "",
    digest: Annotated[str | None, typer.Option(help="refuse unless the evidence digest starts with this")] = None,
    emergency: Annotated[str | None, typer.Option(help="approve alone and late, for this reason; it is recorded and notified")] = None,
    promote: Annotated[bool, typer.Option(help="also give it the traffic now")] = True,
) -> None:
    """Approve a release that passed its gate, and promote it. The approval is bound to the digest of its evidence."""
    from flows.approval import approve_release, promote_release, this_account
    from flows.prefect_events import tell_prefect
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    settings = load_settings()
    told = False
    with open_registry(settings) as registry:
        signed = approve_release(registry, release, as_name, comment, digest, account=this_account(), emergency=emergency)
        missing = registry.approvals.standing(release).missing
        said = "signed" if missing else "approved"
        console.print(f"[green]✓[/] {release} {said} by {plain(as_name)}, evidence {str(signed.evidence_digest)[:12]}", highlight=False)
        if not missing and not promote:
            told = tell_prefect(registry)
    if missing:
        console.print(f"{release} waits for {missing} more", highlight=False)
        return
    if promote:
        live = promote_release(settings, release, as_name)
        console.print(f"[green]✓[/] {live.id} is {live.state}", highlight=False)
    elif told:
        console.print("  Prefect is told: the deployment that waits for it promotes", highlight=False)


@app.command()
def reject(
    release: ReleaseId,
    as_name: Annotated[str, typer.Option("--as", help="your name; it is kept with the rejection")],
    reason: Annotated[str, typer.Option(help="why")] = "rejected by hand",
) -> None:
    """Reject a candidate or a waiting release, for good."""
    from flows.approval import this_account
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    with open_registry(load_settings()) as registry:
        rejected = registry.reject(release, as_name, reason, this_account())
        registry.release_slot(release)
    console.print(f"{rejected.id} is {rejected.state}", highlight=False)


@app.command()
def ask(
    public_name: Annotated[str, typer.Argument(metavar="PUBLIC_NAME", help="e.g. clinic")],
    question: Annotated[str, typer.Argument(help="what to ask")],
    system: Annotated[str | None, typer.Option(help="system prompt; by default the one its recipe was judged with is not added")] = None,
) -> None:
    """Ask the model in production one question, through the gateway."""
    from flows.asking import ask_once
    from serving.settings import load_settings

    answer = ask_once(load_settings(), public_name, question, system)
    console.print(f"[dim]{answer.release_id}[/] {plain(answer.text.strip())}", highlight=False)


@data_app.command("check")
def check_data(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="files, folders, globs or addresses of rows, in any known format")],
    suite: Annotated[list[Path] | None, typer.Option(help="folder of an evaluation suite that the rows must not overlap")] = None,
    base: Annotated[Path | None, typer.Option(help="folder of a base model whose tokenizer counts the tokens")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="tokens per row; longer rows are named")] = None,
    against: Annotated[Path | None, typer.Option(help="folder of a prepared dataset or an earlier check: has the data moved?")] = None,
    out: Annotated[Path, typer.Option(help="folder for the report")] = Path("data_check"),
    as_json: AsJson = False,
) -> None:
    """Look through data before there is a recipe: formats, faults, languages, personal data, duplicates, leaks; ends with what to fix."""
    from flows.data_check import check_data as check
    from training.data.report_markdown import markdown_report
    from training.data.report_text import counted
    from training.data.sources import SourceSection
    from training.errors import InputError

    if not all(paths):
        raise InputError("a path is empty", do="name a file, a folder, a glob or an address; see whether a variable is not set")
    sources = [SourceSection.model_validate({"path": path}) for path in paths]
    with Display(make_console(stderr=True)).stage("data check") as shown:
        checked = check(sources, suite or [], base, max_length, out, shown.report, against)
        shown.note = f"{checked.profile.rows_used:,} of {counted(checked.profile.rows_in, 'row')} can be used"
    if not as_json:
        typer.echo(f"report   {checked.page}\nrejected {checked.rejected}\n")
    typer.echo(checked.profile.model_dump_json(indent=2) if as_json else markdown_report(checked.report, fixes_last=True))
    raise typer.Exit(FAILED if checked.profile.faults else DONE)


def main() -> None:
    """Run the command; a `TunegateError` becomes one clear message and its exit code."""
    from serving.errors import TransitionRefused

    # A polite kill ends like Ctrl-C: stages, and a Prefect server of our own, are taken along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with disk_faults_told(Path(os.environ.get("TUNEGATE_HOME", "."))):
            status = app(standalone_mode=False)
    except typer.Exit as done:
        status = done.exit_code
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except typer.TyperException as error:
        if message := error.format_message():  # without one, the help has been printed
            make_console(stderr=True).print(f"[red]✗[/] {plain(message)}\n  what to do: tunegate --help", highlight=False)
        status = BAD_INPUT
    except TunegateError as error:
        make_console(stderr=True).print(f"[red]✗[/] {plain(str(error))}", highlight=False, soft_wrap=True)
        status = REFUSED if isinstance(error, TransitionRefused) else error.exit_code
    if status == INTERRUPTED:  # typer turns Ctrl-C into this status
        make_console(stderr=True).print(f"\n{stopped_in_words(sys.argv[1:])}")
    sys.exit(status if isinstance(status, int) else DONE)


def stopped_in_words(words: Sequence[str]) -> str:
    """What a person should know who has stopped the command of these words."""
    if list(words[:1]) == ["run"]:
        return "stopped; the next run goes on from here"
    return "stopped; nothing is reported, and the next check begins at the start" if list(words[:2]) == ["data", "check"] else "stopped"


if __name__ == "__main__":
    main()
