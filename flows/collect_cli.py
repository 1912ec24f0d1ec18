"""`tunegate collect`: have production propose rows, look at them, accept or refuse. Parses, asks, prints. Next: `collecting.py`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.prompt import Prompt as Question

from flows.display import make_console, plain

if TYPE_CHECKING:
    from flows.collect_book import Choice, Proposal

collect_app = typer.Typer(no_args_is_help=True, help="Rows from production: proposed from feedback and broken rules, accepted by people.")
console = make_console()

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML file, e.g. flows/recipes/demo.yaml")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="proposals, as `tunegate collect list` shows them")]
AsName = Annotated[str, typer.Option("--as", help="your name; it is kept with every decision")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON lines for scripts, all texts included")]
_SHOWN = 1_000


@collect_app.command("run")
def run(
    recipe: RecipePath,
    most: Annotated[int, typer.Option(min=1, max=100_000, help="proposals made at most, the most telling first")] = 1_000,
) -> None:
    """Propose rows from kept answers, feedback, broken rules and closed reviews: masked, unique, and apart from the recipe's suites."""
    from flows.collecting import collect
    from flows.display import Display
    from flows.recipe import load_recipe
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    loaded, settings = load_recipe(recipe), load_settings()
    with open_registry(settings) as registry, Display(make_console(stderr=True)).stage("collect") as shown:
        found = collect(loaded, settings, registry, shown.report, most)
        shown.note = f"{found.kept} kept answers, {found.drafts} drafts, {len(found.proposals)} proposals"
    for reason, count in sorted(found.dropped.items()):
        console.print(f"  dropped   {count} {plain(reason)}", highlight=False, soft_wrap=True)
    if not found.kept:
        console.print(f"  nothing is kept of {plain(loaded.serving.public_name)}: TUNEGATE_CAPTURE_RATIO says how much is", highlight=False)
    if found.left:
        console.print(f"  left      {found.left} for the next time (--most)", highlight=False)
    console.print(
        f"{found.waiting} wait for a look: tunegate collect review {plain(str(recipe))} --as NAME", highlight=False, soft_wrap=True
    )


@collect_app.command("list")
def list_waiting(recipe: RecipePath, as_json: AsJson = False) -> None:
    """What waits for a look, the most telling first."""
    for number, proposal in enumerate(_waiting(recipe)):
        if as_json:
            typer.echo(proposal.model_dump_json())
            continue
        if not number:
            console.print("id            kind        why", highlight=False)
        console.print(f"{proposal.id}  {proposal.kind:<10}  {plain('; '.join(proposal.reasons))[:120]}", highlight=False, soft_wrap=True)


@collect_app.command("review")
def review(recipe: RecipePath, as_name: AsName) -> None:
    """Look at the proposals one by one: accept, refuse, write a better answer, or leave it. Each choice is on the disk at once."""
    from training.errors import InputError

    waiting = _waiting(recipe)
    for number, proposal in enumerate(waiting, start=1):
        _show(proposal, f"{number} of {len(waiting)}")
        choice = _asked(proposal)
        if choice == "quit":
            break
        if not isinstance(choice, str) and choice is not None:
            try:
                _decide(recipe, [choice], as_name)
            except InputError as error:
                console.print(f"[red]✗[/] {plain(str(error))}", highlight=False, soft_wrap=True)


@collect_app.command("accept")
def accept(
    recipe: RecipePath,
    as_name: AsName,
    ids: Ids = None,
    file: Annotated[Path | None, typer.Option(help='JSON lines {"id": …, "accept": true or false, "answer": …}, answer as needed')] = None,
) -> None:
    """Accept proposals by their ids, or take a whole file of choices; all of them, or none."""
    from training.errors import InputError

    if bool(ids) == (file is not None):
        raise InputError("give ids, or a file", do="tunegate collect list RECIPE --json writes every proposal as a line")
    _decide(recipe, _read(file) if file is not None else [_choice(each, accept=True) for each in ids or ()], as_name)


@collect_app.command("refuse")
def refuse(
    recipe: RecipePath, ids: Annotated[list[str], typer.Argument(metavar="ID…", help="proposals, or rows accepted before")], as_name: AsName
) -> None:
    """Refuse proposals, or take back rows that were accepted: the next run does without them."""
    _decide(recipe, [_choice(each, accept=False) for each in ids], as_name)


def _waiting(recipe: Path) -> "list[Proposal]":
    from flows.collect_book import CollectBook
    from flows.recipe import load_recipe
    from serving.settings import load_settings

    return CollectBook(load_settings().home, load_recipe(recipe).name).waiting()


def _decide(recipe: Path, choices: "list[Choice]", as_name: str) -> None:
    from flows.approval import this_account
    from flows.collecting import decide
    from flows.recipe import load_recipe
    from flows.serving_control import open_registry
    from serving.settings import load_settings

    loaded, settings = load_recipe(recipe), load_settings()
    with open_registry(settings) as registry:
        made, rows = decide(loaded, settings, registry, choices, as_name, this_account())
    for each in made:
        console.print(f"[green]✓[/] {each.proposal.id} {each.choice} by {plain(as_name)}", highlight=False, soft_wrap=True)
    if rows is not None and not loaded.data.collected:
        console.print(f"  [yellow]![/] {plain(loaded.name)} does not learn from them: set data.collected: true", highlight=False)


def _choice(name: str, *, accept: bool, answer: str | None = None) -> "Choice":
    from flows.collect_book import Choice

    return Choice(id=name, accept=accept, answer=answer or None)


def _read(path: Path) -> "list[Choice]":
    from pydantic import ValidationError

    from flows.collect_book import Choice
    from training.errors import InputError

    choices, faults = list[Choice](), list[str]()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", do="name a file of JSON lines") from None
    for number, line in enumerate(lines, start=1):
        try:
            choices += [Choice.model_validate(json.loads(line))] if line.strip() else []
        except (ValidationError, ValueError) as error:
            said = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
            faults.append(f"{path}:{number}: {'.'.join(map(str, said['loc']))} {said['msg']}".replace(":  ", ": "))
    if faults or not choices:
        raise InputError(
            "\n".join(faults) or f"{path} holds no choice", why="nothing was decided", do='a line is {"id": …, "accept": true}'
        )
    return choices


def _show(proposal: "Proposal", where: str) -> None:
    console.rule(f"{where}: {proposal.kind} {proposal.id}")
    for turn in proposal.messages:
        console.print(f"[dim]{turn['role']}[/] {plain(turn['content'][:_SHOWN])}", highlight=False)
    if proposal.better:
        console.print(f"[green]better[/] {plain(proposal.better[:_SHOWN])}", highlight=False)
    if proposal.worse:
        console.print(f"[red]worse[/]  {plain(proposal.worse[:_SHOWN])}", highlight=False)
    for reason in proposal.reasons:
        console.print(f"  because {plain(reason)}", highlight=False)


def _asked(proposal: "Proposal") -> "Choice | str | None":
    """A choice, `quit`, or None to leave it for later."""
    keys = {"w": "write the answer", "r": "refuse", "s": "skip", "q": "quit"}
    keys = {"a": "accept", **keys} if proposal.better else keys
    said = Question.ask(", ".join(f"{key} {what}" for key, what in keys.items()), console=console, choices=list(keys), show_choices=False)
    if said == "w":
        answer = Question.ask("the answer it should have given", console=console).strip()
        return _choice(proposal.id, accept=True, answer=answer) if answer else None
    return "quit" if said == "q" else None if said == "s" else _choice(proposal.id, accept=said == "a")
