"""`tunegate rules`: what is printed, and what its exit codes say."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from flows.rules_cli import rules_app
from tests.fakes_suites import RULES, write_suite


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(rules_app, [str(word) for word in words])


def test_a_suite_whose_rules_hold_passes(tmp_path: Path) -> None:
    done = run("test", write_suite(tmp_path))
    assert done.exit_code == 0
    assert "pain-call" in done.output
    assert "hide in a quotation" in done.output


def test_json_tells_the_catch_rate_of_each_mutation_and_rule(tmp_path: Path) -> None:
    done = run("test", write_suite(tmp_path), "--json")
    (report,) = json.loads(done.output)["suites"].values()
    assert report["catch_rate"] == 1
    assert report["by_rule"]["pain-call"]["made"] == report["mutants"] > 3
    assert report["by_mutation"]["negate"] == {"caught": 1, "made": 1}


def test_an_example_that_lies_ends_with_one(tmp_path: Path) -> None:
    done = run("test", write_suite(tmp_path, rules=RULES.replace("passes: [Call 911.]", "passes: [Sleep.]")))
    assert done.exit_code == 1
    assert "passes[1] does not" in done.output


def test_a_threshold_that_is_missed_ends_with_one(tmp_path: Path) -> None:
    """An expression that takes 'need to call' for a call lets the denied example's mutants pass, so its catch rate is below 1."""
    greedy = RULES.replace("[call 911]", "['/(?:no need to |not )?call 911/']").replace("fails: [No need to call 911.]", "fails: [Sleep.]")
    folder = write_suite(tmp_path, rules=greedy)
    assert run("test", folder, "--threshold", "1").exit_code == 1
    assert run("test", folder, "--threshold", "0").exit_code == 0


def test_an_answer_is_tried_and_its_evidence_shown(tmp_path: Path) -> None:
    folder = write_suite(tmp_path)
    kept, broken = (run("try", folder, "--prompt", "Prompt 0?", "--answer", answer) for answer in ("Call 911 now.", "No need to call 911."))
    assert (kept.exit_code, broken.exit_code) == (0, 1)
    assert "only to deny it ('no need')" in broken.output
    (result,) = json.loads(run("try", folder, "--prompt", "p0", "--answer", "Call 911 now.", "--json").output)
    assert result["evidence"][0]["text"] == "Call 911"


def test_an_answer_that_no_rule_is_about_says_so(tmp_path: Path) -> None:
    done = run("try", write_suite(tmp_path), "--prompt", "Something else", "--answer", "Hello")
    assert done.exit_code == 0
    assert "no rule holds for this prompt" in done.output


def test_an_answer_cannot_steer_the_terminal(tmp_path: Path) -> None:
    done = run("try", write_suite(tmp_path), "--prompt", "p0", "--answer", "\x1b[2J[red]Call 911[/red]")
    assert "\x1b[2J" not in done.output
    assert "[red]Call 911[/red]" in done.output


def test_two_suites_of_one_name_are_refused(tmp_path: Path) -> None:
    done = run("test", write_suite(tmp_path / "a"), write_suite(tmp_path / "b", max_tokens=7))
    assert "two suites of one name" in str(done.exception)
