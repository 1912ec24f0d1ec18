"""`tunegate gate`: explain a verdict or a policy, decide again about recorded scorecards, and say what a suite is able to show.

Nothing here talks to a server or changes a release. Next: `gate_words.py`, which puts it on the terminal.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.display import make_console
from flows.errors import BAD_INPUT, DONE, NOT_PASSED

gate_app = typer.Typer(no_args_is_help=True, help="Explain verdicts and policies, and decide again about recorded scorecards.")

AsJson = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]
Card = Annotated[Path, typer.Option(metavar="CARD", help="a scorecard: its folder or its record.json, e.g. below .tunegate/scorecards")]
MaybeCard = Annotated[Path | None, typer.Option(metavar="CARD", help="a scorecard, to take the models' own noise from")]
Recipe = Annotated[Path, typer.Option(metavar="RECIPE", help="the recipe whose `gate` section is the policy")]
console = make_console()


@gate_app.command("explain")
def explain(
    what: Annotated[
        str | None, typer.Argument(metavar="[VERDICT|RELEASE]", help="a verdict's folder or record.json, or a release such as clinic-2")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="RECIPE", help="explain this recipe's policy; no verdict is needed")] = None,
    as_json: AsJson = False,
) -> None:
    """Every condition with its numbers, its interval, and one plain sentence why; or what a recipe's policy asks for."""
    from flows.gate_words import find_verdict, policy_in_words, show_policy, show_verdict
    from flows.recipe import load_recipe
    from training.errors import InputError

    if (what is None) == (recipe is None):
        raise InputError("give a verdict or a release, or --recipe RECIPE", do="tunegate gate explain clinic-2")
    if recipe is not None:
        policy = load_recipe(recipe).gate
        typer.echo(json.dumps(policy_in_words(policy), indent=2, ensure_ascii=False)) if as_json else show_policy(console, policy)
        return
    verdict = find_verdict(str(what))
    typer.echo(verdict.model_dump_json(indent=2)) if as_json else show_verdict(console, verdict)


@gate_app.command("decide")
def decide(
    candidate: Card,
    recipe: Recipe,
    champion: MaybeCard = None,
    speed: Annotated[
        Path | None, typer.Option(metavar="RECORD", help="how fast both answered side by side: scorecards/speed-… of the run")
    ] = None,
    preferences: Annotated[
        Path | None, typer.Option(metavar="RECORD", help="what the judge model preferred: scorecards/judge-… of the run")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decide again about two recorded scorecards by a recipe's policy. Changes nothing; exit code 0 for PASS, 3 for anything else."""
    from evaluation.gate import decide as judge
    from flows.gate_words import read_card, read_preferences, read_speed, show_verdict
    from flows.recipe import load_recipe

    policy = load_recipe(recipe).gate
    theirs, timed = read_card(champion) if champion else None, read_speed(speed) if speed else None
    preferred = read_preferences(preferences) if preferences else None
    verdict = judge(read_card(candidate), theirs, policy, speed=timed, preferences=preferred)
    typer.echo(verdict.model_dump_json(indent=2)) if as_json else show_verdict(console, verdict)
    raise typer.Exit(DONE if verdict.promotes else NOT_PASSED)


@gate_app.command("power")
def power(
    recipe: Recipe,
    candidate: MaybeCard = None,
    champion: MaybeCard = None,
    changed: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="share of the prompts on which two models are expected to fare differently")
    ] = 0.2,
    as_json: AsJson = False,
) -> None:
    """What the recipe's suite is able to show: the smallest changes it detects, and conditions that nothing could pass."""
    from evaluation.suite_union import load_suites
    from flows.gate_power import needs_of, show_needs
    from flows.gate_words import read_card
    from flows.recipe import load_recipe
    from training.errors import InputError

    if (candidate is None) != (champion is None):
        raise InputError("give both --candidate and --champion, or neither", why="noise is that of a difference", do="name both scorecards")
    loaded = load_recipe(recipe)
    cards = (read_card(candidate), read_card(champion)) if candidate and champion else None
    needs = needs_of(load_suites(loaded.evaluation.suites), loaded.gate, changed, cards)
    typer.echo(json.dumps([vars(need) for need in needs], indent=2, ensure_ascii=False)) if as_json else show_needs(console, needs)
    raise typer.Exit(BAD_INPUT if any(need.impossible for need in needs) else DONE)
