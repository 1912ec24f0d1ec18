"""What the pages say is true: the file tree, the commands, the links, the exit codes, the example of a rule."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from evaluation.rule_files import load_rules
from evaluation.rule_testing import check_examples
from flows import cli, errors
from monitoring.alerts import ALERTS
from tests.repository.checkout import PACKAGES, ROOT, anchors, pages, project_files
from training.data.reasons import REASONS

PAGES = {path.as_posix(): (ROOT / path).read_text(encoding="utf-8") for path in pages()}
README = PAGES["README.md"]


def tree(page: str = "README.md") -> dict[Path, str]:
    """Path -> phrase, from a page's indented list of the files in its folder; empty where it has none."""
    _, found, after = PAGES[page].partition("\n## Files\n")
    block = after.split("```")[1] if found else ""
    listed: dict[Path, str] = {}
    above: list[str] = []
    for line in block.strip("\n").splitlines():
        name, phrase = re.split(r" {2,}", line.strip(), maxsplit=1)
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [name.rstrip("/")]
        listed[Path(page).parent.joinpath(*above)] = phrase
    return listed


def commands(tool: str) -> list[tuple[str, list[str]]]:
    """(page, words behind `tool`) of every command that a page tells its reader to type."""
    found = []
    for page, text in PAGES.items():
        blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        typed = [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", prose)
        for line in typed:
            first, _, rest = line.strip().partition(" ")
            if Path(first).name == tool and rest:
                found.append((page, shlex.split(rest, comments=True)))
    return found


def known_commands() -> dict[str, set[str]]:
    """Command of `tunegate` -> its options; those of a group as `group command`."""
    own: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # a group has them
    groups = {name: command.commands for name, command in own.items() if hasattr(command, "commands")}
    known = {name: command for name, command in own.items() if name not in groups}
    known |= {f"{group} {name}": command for group, inner in groups.items() for name, command in inner.items()}
    return {name: {option for parameter in command.params for option in parameter.opts} for name, command in known.items()}


def test_every_module_of_a_package_is_listed_by_the_page_of_its_folder_or_the_one_above() -> None:
    modules = {path for path in project_files() if path.suffix == ".py" and path.parts[0] in PACKAGES and path.name != "__init__.py"}
    listed = {path for page in PAGES for path in tree(page)}
    assert len(modules) > 300
    assert modules - listed == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_readme_shows_where_to_begin_and_leads_to_the_rest(package: str) -> None:
    assert 3 <= sum(path.parts[0] == package and path.suffix == ".py" for path in tree()) <= 12
    assert f"({package}/README.md#files)" in README


def test_every_folder_of_deploy_and_every_recipe_is_in_the_tree() -> None:
    expected = {Path(*path.parts[:2]) for path in project_files() if path.parts[0] == "deploy" and len(path.parts) > 2}
    expected |= {path for path in project_files() if path.match("flows/recipes/*.yaml")}
    assert len(expected) >= 9
    assert expected - tree().keys() == set()


@pytest.mark.parametrize("page", PAGES)
def test_everything_that_a_page_lists_exists_and_has_a_phrase(page: str) -> None:
    assert [path for path, phrase in tree(page).items() if not (ROOT / path).exists() or len(phrase) < 5] == []


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {(page, words[0]) for page, words in commands("make")}
    assert {("README.md", "demo"), ("README.md", "test")} <= named
    assert {(page, target) for page, target in named if target not in targets} == set()


def test_every_tunegate_command_that_a_page_names_exists_with_its_options() -> None:
    known, wrong = known_commands(), []
    groups = {name.split()[0] for name in known if " " in name}
    named = [(page, words) for page, words in commands("tunegate") if words != ["--help"]]
    for page, words in named:
        command = " ".join(words[:2]) if words[0] in groups else words[0]
        options = {word for word in words if word.startswith("-")}
        if command not in known or not options <= known[command]:
            wrong.append((page, words))
    assert len(named) >= 20
    assert wrong == []


def test_the_readme_names_every_command() -> None:
    groups = {name.split()[0] for name in known_commands() if " " in name}
    named = {" ".join(words[:2]) if words[0] in groups else words[0] for page, words in commands("tunegate") if page == "README.md"}
    assert known_commands().keys() - named == set()


def test_every_module_that_a_page_runs_exists() -> None:
    named = {words[1] for _, words in commands("python") if words[0] == "-m"}
    paths = {name: Path(*name.split(".")) for name in named}
    assert {"flows.reference", "monitoring"} <= named
    assert [name for name, path in paths.items() if not {path.with_suffix(".py"), path / "__main__.py"} & set(project_files())] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    here = (ROOT / page).parent
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        name, _, anchor = link.partition("#")
        target = here / name if name else ROOT / page
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))):
            broken.append(link)
    assert broken == []


def test_the_pages_link_to_each_other() -> None:
    """A page that nothing leads to is not read."""
    linked = {
        ((ROOT / page).parent / link.partition("#")[0]).resolve()
        for page, text in PAGES.items()
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if "://" not in link
    }
    assert [page for page in PAGES if page != "README.md" and (ROOT / page).resolve() not in linked] == []


def test_the_exit_codes_are_those_of_the_command() -> None:
    told = re.search(r"^Exit codes: (.*?)\n\n|^Exit codes: (.*?)\. A run", README, flags=re.MULTILINE | re.DOTALL)
    assert told is not None
    codes = [errors.DONE, errors.FAILED, errors.BAD_INPUT, errors.NOT_PASSED, errors.REFUSED, errors.INTERRUPTED]
    assert [int(part.split()[0]) for part in told[0].removeprefix("Exit codes: ").split(" · ")] == codes


def test_every_alert_has_a_place_in_the_runbook() -> None:
    assert len(ALERTS) >= 2
    assert [alert.name for alert in ALERTS if f"\n### {alert.name}\n" not in PAGES["monitoring/README.md"]] == []


def test_the_example_of_a_rule_does_what_it_says(tmp_path: Path) -> None:
    (example,) = [
        block for block in re.findall(r"```yaml\n(.*?)```", PAGES["evaluation/README.md"], flags=re.DOTALL) if "rules:\n" in block
    ]
    (tmp_path / "rules.yaml").write_text(example, encoding="utf-8")
    book = load_rules(tmp_path / "rules.yaml")
    assert len(book.rules[0].passes) == len(book.rules[0].fails) == 2
    assert check_examples(book) == []


def test_every_reason_to_leave_a_row_out_is_documented() -> None:
    assert len(REASONS) >= 40
    assert [code for code in REASONS if f"`{code}`" not in PAGES["training/data/README.md"]] == []
