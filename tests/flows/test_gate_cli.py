"""`tunegate gate`: its exit codes, what it finds, and that it says before a training what no candidate could pass."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluation.gate import decide
from evaluation.records import Choice, Preferences, Scorecard, Verdict
from evaluation.suite import load_suite
from flows import cli
from flows.errors import BAD_INPUT, DONE, FAILED, NOT_PASSED
from flows.gate_power import needs_of
from flows.plan import check_files
from flows.recipe import load_recipe
from serving.records import Release
from serving.registry import Registry
from tests.fakes_evaluation import make_answer, make_card, side_by_side
from tests.fakes_flows import ROOT, recipe_values, write_recipe
from tests.fakes_serving import candidate, url_in
from training.errors import TunegateError

POLICY = {
    "must": {"critical_failures": {"max": 0}},
    "must_not_regress": {"rouge_l": {"by": 0.1}},
    "should_improve": ["rule_pass_rate"],
    "flip_budget": {"max": 2},
    "min_prompts": 2,
}


@dataclass
class Said:
    status: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "home"


@pytest.fixture
def tunegate(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["tunegate", "gate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, said.out, said.err)

    return run


def recipe(folder: Path, **gate: object) -> Path:
    values = recipe_values()
    values["gate"] = POLICY | gate
    return write_recipe(folder, values)


def scorecard(folder: Path, broken: int = 0, subject: str = "candidate") -> tuple[Path, Scorecard]:
    card = make_card([make_answer(number, broken="critical" if number < broken else None) for number in range(40)], subject=subject)
    return card.write(folder), card


@pytest.mark.parametrize(("ours", "theirs", "status"), [(0, 10, DONE), (3, 10, NOT_PASSED), (0, 0, NOT_PASSED)])
def test_deciding_again_ends_as_a_run_would(tunegate: Run, tmp_path: Path, ours: int, theirs: int, status: int) -> None:
    """PASS; FAIL, as three critical rules are broken; INCONCLUSIVE, as nothing improved."""
    card, champion = scorecard(tmp_path / "ours", ours)[0], scorecard(tmp_path / "theirs", theirs, "champion")[0]
    arguments = ("decide", "--candidate", card, "--champion", champion / "record.json", "--recipe", recipe(tmp_path))
    said = tunegate(*arguments)
    assert said.status == status
    assert "must_not_regress.rouge_l" in said.out
    again = tunegate(*arguments, "--json")
    assert Verdict.model_validate_json(again.out).promotes == (status == DONE)


def test_speed_and_a_judges_choice_are_read_from_their_records(tunegate: Run, tmp_path: Path) -> None:
    asked = {"must_not_regress": {"latency_p95_s": {"by_ratio": 1.0}}, "judge_win_rate": {"min_prompts": 1}}
    values = recipe_values() | {"gate": POLICY | asked}
    values["evaluation"] |= {"judge": {"base_url": "http://127.0.0.1:9", "model": "judge"}}
    (folder, card), (other, champion) = scorecard(tmp_path / "ours"), scorecard(tmp_path / "theirs", 10, "champion")
    arguments = ("decide", "--candidate", folder, "--champion", other, "--recipe", write_recipe(tmp_path / "r", values))
    assert tunegate(*arguments).out.count("ERROR") == 3
    speed = side_by_side(card, champion).write(tmp_path / "speed")
    choices = tuple(Choice(prompt_id=each.prompt_id, preferred="candidate") for each in card.answers)
    record = Preferences(
        created_at="now", candidate_digest=card.digest, champion_digest=champion.digest, judge="judge", terms="", choices=choices
    )
    said = tunegate(*arguments, "--speed", speed, "--preferences", record.write(tmp_path / "preferences"))
    assert said.status == DONE, said.out


def test_deciding_without_a_champion_judges_the_candidate_alone(tunegate: Run, tmp_path: Path) -> None:
    said = tunegate("decide", "--candidate", scorecard(tmp_path / "ours")[0], "--recipe", recipe(tmp_path))
    assert said.status == DONE
    assert "There is no champion yet" in said.out


def test_the_worst_condition_is_told_first_with_its_numbers(tunegate: Run, tmp_path: Path) -> None:
    card = scorecard(tmp_path / "ours", broken=2)[1]
    verdict = decide(card, scorecard(tmp_path / "theirs")[1], load_recipe(recipe(tmp_path)).gate)
    said = tunegate("explain", verdict.write(tmp_path / "verdict"))
    assert said.status == DONE
    told = [line for line in said.out.splitlines() if line.startswith(("FAIL", "INCONCLUSIVE", "PASS"))]
    assert [line.split()[0] for line in told] == sorted((line.split()[0] for line in told), key=["FAIL", "INCONCLUSIVE", "PASS"].index)
    assert "critical_failures is 2 of 40 answers, which breaks ≤ 0" in said.out
    assert "40 prompts · candidate 2 · interval" in said.out


def test_the_newest_verdict_on_a_release_is_found_though_it_was_rejected(tunegate: Run, home: Path, tmp_path: Path) -> None:
    release, verdict = _judged_release(home)
    said = tunegate("explain", release.id, "--json")
    assert Verdict.model_validate_json(said.out) == verdict


def _judged_release(home: Path) -> tuple[Release, Verdict]:
    home.mkdir()
    with Registry(url_in(home)) as registry:
        release = candidate(registry)
    card = scorecard(home / "scorecards" / f"{release.model_digest[:12]}-terms", broken=1)[1]
    older, newer = (decide(card, None, load_recipe(recipe(home / "r")).gate, at=f"2026-01-0{day}") for day in (1, 2))
    older.write(home / "runs" / release.recipe_name / "verdict-a")
    newer.write(home / "runs" / release.recipe_name / "verdict-b")
    other = decide(make_card([make_answer(1)]), None, load_recipe(recipe(home / "r")).gate, at="2026-01-03")
    other.write(home / "runs" / release.recipe_name / "verdict-c")
    return release, newer


def test_a_policy_is_told_without_a_verdict(tunegate: Run, tmp_path: Path) -> None:
    slices = [{"each": "topic", "only": ["a"], "must": {"empty_answers": {"max": 1}}, "not_shown_worse": ["rouge_l"]}]
    path = recipe(tmp_path, improvement="any", slices=slices)
    said = tunegate("explain", "--recipe", path)
    assert said.status == DONE
    for sentence in (
        "at least one of rule_pass_rate has to be shown better, corrected for their number by Holm",
        "at most 2 prompts that the champion passed may be broken",
        "in a not shown to be worse, corrected for their number by Holm; fewer than 5 prompts there are INCONCLUSIVE",
    ):
        assert sentence in said.out
    assert dict(json.loads(tunegate("explain", "--recipe", path, "--json").out))["must.critical_failures"].endswith(
        "whatever the champion does"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("explain",), BAD_INPUT, "give a verdict or a release, or --recipe RECIPE"),
        (("explain", "nothing-1"), BAD_INPUT, "nothing-1"),
        (("explain", "nowhere/record.json"), BAD_INPUT, "no verdict is there"),
        (("decide", "--candidate", "nowhere", "--recipe", "RECIPE"), BAD_INPUT, "no scorecard is there"),
        (("decide", "--candidate", "CARD", "--recipe", "nowhere.yaml"), BAD_INPUT, "nowhere.yaml"),
        (("decide", "--candidate", "TORN", "--recipe", "RECIPE"), FAILED, "TORN/record.json"),
        (("explain", "CARD"), FAILED, "holds a Scorecard, not a Verdict"),
        (("power", "--recipe", "RECIPE", "--candidate", "CARD"), BAD_INPUT, "give both --candidate and --champion"),
        (("power", "--recipe", "RECIPE", "--changed", "0"), BAD_INPUT, "changed"),
    ],
)
def test_what_cannot_be_found_or_read_is_one_clear_error(
    tunegate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], status: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    scorecard(tmp_path / "CARD")
    scorecard(tmp_path / "TORN")[0].joinpath("record.json").write_text('{"kind": "Scor', encoding="utf-8")
    recipe(tmp_path).rename(tmp_path / "RECIPE")
    said = tunegate(*arguments)
    assert said.status == status
    assert told in said.err


# power


def test_power_says_what_the_demos_suite_can_show(tunegate: Run) -> None:
    """60 of its prompts are under a critical rule: 1 - 0.05^(1/60) = 4.9 %."""
    said = tunegate("power", "--recipe", ROOT / "flows" / "recipes" / "demo.yaml")
    assert said.status == DONE
    assert "must.critical_failures  (60 prompts)" in said.out
    assert "the true rate is below 4.9%" in said.out
    assert "a gain of 0.123 is shown 4 times in 5" in said.out


def test_two_scorecards_tell_the_noise_in_the_metrics_own_unit(tunegate: Run, tmp_path: Path) -> None:
    cards = ("--candidate", scorecard(tmp_path / "a")[0], "--champion", scorecard(tmp_path / "b", 9)[0])
    path = recipe(tmp_path)
    bare, told = (tunegate("power", "--recipe", path, *more, "--json").out for more in ((), cards))
    assert "standard deviations" in bare
    assert "with the noise of these scorecards" in told
    assert "standard deviations" not in told


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"min_prompts": 3}, "gate.min_prompts is 3, but small has 2 prompts: nothing could pass"),
        ({"must": {"major_failures": {"max": 0}}}, "major_failures applies to no prompt"),
        ({"must": {"rule_pass_rate": {"min": 0.9, "proven": True}}}, "not even 2 of 2 would prove"),
        ({"slices": [{"each": "topic", "must": {"rule_pass_rate": {"min": 0.5}}}]}, "slices.min_prompts is 5: nothing could pass"),
        ({"slices": [{"each": "topic", "min_prompts": 1, "not_shown_worse": ["rule_pass_rate"]}]}, "to show a loss"),
        ({"slices": [{"each": "tag", "only": ["x"], "must": {"rule_pass_rate": {"min": 0.5}}}]}, "slices.tag=x.rule_pass_rate"),
        ({"slices": [{"each": "tag", "must": {"rule_pass_rate": {"min": 0.5}}}]}, "the suite has no tag"),
    ],
)
def test_a_condition_that_nothing_could_pass_is_refused_before_anything_is_trained(
    tunegate: Run, tmp_path: Path, gate: dict[str, Any], told: str
) -> None:
    path = recipe(tmp_path, **({"should_improve": [], "must_not_regress": {}} | gate))
    assert tunegate("power", "--recipe", path).status == BAD_INPUT
    with pytest.raises(TunegateError, match=re.escape(told)):
        check_files(load_recipe(path))


@pytest.mark.parametrize("path", sorted((ROOT / "flows" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_shipped_recipe_asks_for_what_nothing_could_pass(path: Path) -> None:
    loaded = load_recipe(path)
    needs = needs_of(load_suite(loaded.evaluation.suite), loaded.gate)
    assert len(needs) >= 4
    assert [need for need in needs if need.impossible] == []
