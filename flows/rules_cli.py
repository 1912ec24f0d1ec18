"""`tunegate rules`: test the rules of a suite, and try them on one answer. What is tested is in `evaluation/rule_testing.py`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows.display import make_console, plain
from flows.errors import DONE, FAILED

if TYPE_CHECKING:
    from evaluation.rule_testing import TestReport
    from evaluation.rules import RuleResult

rules_app = typer.Typer(no_args_is_help=True, help="Test the rules that answers are judged by, and try them.")
SuitePath = Annotated[Path, typer.Argument(metavar="SUITE", help="folder of a suite, e.g. flows/recipes/clinic_en/suite, or a rule file")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]
_STYLES = {"meant": "black on green", "denied": "black on yellow", "forbidden": "white on red"}


@rules_app.command("test")
def run_rule_tests(
    suites: Annotated[list[Path], typer.Argument(metavar="SUITE…", help="folders of suites, or rule files")],
    threshold: Annotated[float, typer.Option(min=0, max=1, help="least share of mutants that must be judged right")] = 0.95,
    survivors: Annotated[int, typer.Option(min=0, help="how many of the mutants judged wrong to show")] = 10,
    as_json: AsJson = False,
) -> None:
    """Judge every rule's own examples and their mutants: denied, quoted, taken back, in another unit, width, script or order.

    Ends with 1 when an example lies, a regular expression runs without end, or too few mutants are judged right.
    """
    from evaluation.rule_testing import run_tests

    reports = {str(path): run_tests(book) for path, book in _books(suites).items()}
    passed = all(not report.problems and report.catch_rate >= threshold for report in reports.values())
    if as_json:
        found = {name: _as_value(report) for name, report in reports.items()}
        typer.echo(json.dumps({"passed": passed, "threshold": threshold, "suites": found}, ensure_ascii=False, indent=2))
    else:
        for name, report in reports.items():
            _show(name, report, threshold, survivors)
    raise typer.Exit(DONE if passed else FAILED)


@rules_app.command("try")
def try_rules(
    suite: SuitePath,
    answer: Annotated[str, typer.Option(help="the answer to judge; - reads it from standard input")],
    prompt: Annotated[str, typer.Option(help="what the user asked; a prompt of the suite lends its topic, tags and reference")] = "",
    topic: Annotated[str | None, typer.Option(help="topic of the prompt, where the suite does not have it")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge one answer and show why: green is what counts, yellow what is said but does not count, red what must not be said.

    Ends with 1 when a rule is broken, and says so when none holds.
    """
    from evaluation.rules import judge_answer

    text = sys.stdin.read() if answer == "-" else answer
    book, asked = _asked(suite, prompt, topic)
    results = judge_answer(book, asked, text)
    if as_json:
        typer.echo(json.dumps([result.model_dump(mode="json") for result in results], ensure_ascii=False, indent=2))
    else:
        _show_verdicts(results, text)
    raise typer.Exit(DONE if all(result.passed for result in results) else FAILED)


def _books(paths: list[Path]) -> dict[Path, Any]:
    """The rule book of each path, with all faults of all of them at once."""
    from evaluation.errors import SuiteError
    from evaluation.rule_files import load_rules
    from evaluation.suite import load_suite
    from evaluation.suite_union import name_clashes

    problems: list[str] = []
    books, suites = {}, {}
    for path in paths:
        try:
            if path.is_file():
                books[path] = load_rules(path)
            else:
                suites[path] = load_suite(path)
                books[path] = suites[path].rules
        except SuiteError as error:
            problems += error.problems
    if problems := problems + name_clashes(suites):
        raise SuiteError(problems)
    return books


def _asked(path: Path, text: str, topic: str | None) -> tuple[Any, Any]:
    """The rules, and the suite's own prompt of this text, or one made of it."""
    from evaluation.rule_files import load_rules
    from evaluation.suite import Message, Prompt, load_suite

    suite = None if path.is_file() else load_suite(path)
    book = suite.rules if suite else load_rules(path)
    known = next((each for each in suite.prompts if text in (each.id, each.text)), None) if suite else None
    if known is not None and topic is None:
        return book, known
    system = (Message(role="system", content=suite.system_prompt),) if suite and suite.system_prompt else ()
    messages = (*system, Message(role="user", content=text or "?"))
    return book, Prompt(id="tried", topic=topic or "", messages=messages)


def _as_value(report: "TestReport") -> dict[str, Any]:
    def rates(tally: dict[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
        return {key: {"caught": caught, "made": made} for key, (caught, made) in tally.items()}

    return {
        "rules": report.rules,
        "examples": report.examples,
        "problems": list(report.problems),
        "mutants": len(report.trials),
        "catch_rate": report.catch_rate,
        "by_mutation": rates({str(key): counts for key, counts in report.by_mutation().items()}),
        "by_rule": rates(report.by_rule()),
        "survivors": [
            {"rule": each.rule_id, "mutation": each.mutant.mutation, "should_pass": each.mutant.keeps, "answer": each.mutant.answer}
            for each in report.survivors
        ],
    }


def _show(name: str, report: "TestReport", threshold: float, survivors: int) -> None:
    console = make_console()
    lying = len(report.problems)
    console.print(f"{plain(name)}: {report.rules} rules, {report.examples} examples, {lying or 'none'} of them wrong", highlight=False)
    for problem in report.problems:
        console.print(f"  [red]✗[/] {plain(problem)}", highlight=False, soft_wrap=True)
    for title, tally in (("mutation", report.by_mutation()), ("rule", report.by_rule())):
        table = Table(title, "caught", "made", "rate")
        for key, (caught, made) in tally.items():
            style = "" if caught == made else "yellow"
            table.add_row(plain(key), str(caught), str(made), f"{caught / made:.1%}", style=style)
        console.print(table)
    for trial in report.survivors[:survivors]:
        should = "pass" if trial.mutant.keeps else "break"
        console.print(f"  {plain(trial.rule_id)}, {trial.mutant.mutation}, should {should}: {plain(trial.mutant.answer)}", highlight=False)
    good = report.catch_rate >= threshold
    mark = "[green]✓[/]" if good and not lying else "[red]✗[/]"
    console.print(f"{mark} {report.catch_rate:.1%} of {len(report.trials)} mutants judged right, at least {threshold:.1%} are asked for")


def _show_verdicts(results: "tuple[RuleResult, ...]", answer: str) -> None:
    console = make_console()
    if not results:
        console.print("no rule holds for this prompt; give --prompt as the suite has it, or --topic", highlight=False)
    for result in results:
        mark = "[green]✓[/]" if result.passed else "[red]✗[/]"
        console.print(f"{mark} {result.rule_id} ({result.severity}): {plain(result.reason)}", highlight=False, soft_wrap=True)
        console.print(_highlighted(answer, result), soft_wrap=True)


def _highlighted(answer: str, result: "RuleResult") -> Text:
    """The answer as text, never as markup; control characters are made harmless one for one, so that the spans stay true."""
    shown = Text("".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in answer))
    for span in result.evidence:
        shown.stylize(_STYLES[span.role], span.start, span.end)
    return shown
