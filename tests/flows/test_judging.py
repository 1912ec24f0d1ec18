"""From a merged model to a verdict, over a real server: what is asked, what is kept, and where the release ends up."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.parity_records import FaultKind, ParityReport
from evaluation.records import Outcome
from flows import stages
from flows.asking import ask_once
from flows.comparing import Together
from flows.errors import ParityBroken, ServingFailed
from flows.judging import PARITY_FOLDER, Judged, evaluate, evidence_digest, gate, keep_champion_serving, register
from flows.rendering import weights_of
from flows.stages import Line
from serving.lifecycle import State
from tests.fakes_flows import SAFE, UNSAFE, Site, dataset, merged_model, open_small_line, printed, recipe_values, write_recipe
from training.errors import RecordError
from training.records import MergedModel


def judged(line: Line, says: str) -> Judged:
    """The second half of `retrain` for a model that says `says`."""
    base = stages.fetch_base(line)
    champion = keep_champion_serving(line, base)
    merged = merged_model(line, says)
    release = register(line, merged)
    return gate(line, release, (evaluate(line, release, merged), evaluate(line, champion), Together()), merged, dataset(line))


def parity_of(outcome: Judged) -> ParityReport:
    return ParityReport.read(outcome.verdict_folder / PARITY_FOLDER)


def test_the_base_model_becomes_the_first_champion_and_answers_through_the_gateway(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "first")
    champion = keep_champion_serving(line, stages.fetch_base(line))
    assert (champion.id, champion.state) == ("first-1", State.LIVE)
    assert "the base model is the first champion of 'first'" in printed(line.display.console)
    site.wait_ready(champion)
    answer = ask_once(site.settings, "first", "Does it hurt?", None)
    assert (answer.release_id, answer.text) == ("first-1", UNSAFE)


def test_a_champion_that_is_there_is_kept(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "kept")
    base = stages.fetch_base(line)
    assert keep_champion_serving(line, base) == keep_champion_serving(line, base)


def test_a_scorecard_is_kept_and_the_engine_is_not_asked_again(site: Site, tmp_path: Path) -> None:
    """Two prompts and one question to warm up are three chats."""
    line = site.line(tmp_path, "cards")
    release = register(line, merged_model(line, SAFE))
    first = evaluate(line, release)
    assert site.asked(release) == 3
    assert evaluate(line, release) == first
    assert site.asked(release) == 3
    assert first.record.metrics["critical_failures"] == 0


def test_a_changed_suite_is_asked_anew(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "suites")
    release = register(line, merged_model(line, SAFE))
    first = evaluate(line, release)
    prompts = tmp_path / "suite" / "prompts.jsonl"
    prompts.write_text(prompts.read_text(encoding="utf-8").replace("Prompt 1?", "Prompt one?"), encoding="utf-8")
    assert evaluate(line, release).folder != first.folder


def test_a_scorecard_that_was_altered_is_refused(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "forged")
    release = register(line, merged_model(line, UNSAFE))
    record = evaluate(line, release).folder / "record.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"critical_failures": 2', '"critical_failures": 0'), encoding="utf-8")
    with pytest.raises(RecordError, match="was altered"):
        evaluate(line, release)


def test_a_pass_awaits_approval_with_evidence_and_a_report(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "passes")
    outcome = judged(line, SAFE)
    release = site.registry.release(outcome.release.id)
    assert (outcome.verdict.outcome, release.state) == (Outcome.PASS, State.AWAITING_APPROVAL)
    assert release.evidence_digest == evidence_digest(release.model_digest, outcome.verdict, parity_of(outcome))
    assert release.judged_against == "passes-1"
    assert release.report_path == outcome.verdict_folder / "report.html"
    assert "<html" in release.report_path.read_text(encoding="utf-8")


def test_a_fail_is_rejected_with_its_reasons_and_its_slot_is_given_back(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "fails")
    outcome = judged(line, "Take a walk.")
    release = site.registry.release(outcome.release.id)
    assert (outcome.verdict.outcome, release.state) == (Outcome.FAIL, State.REJECTED)
    assert site.registry.history(release.id)[-1].reason == "gate: FAIL (must.critical_failures)"
    assert release.id not in site.registry.snapshot().leases
    champion = site.registry.champion("fails")
    assert champion is not None
    assert champion.id == "fails-1"


def test_too_few_prompts_are_not_a_pass(site: Site, tmp_path: Path) -> None:
    values = recipe_values("few")
    values["gate"]["min_prompts"] = 3
    line = open_small_line(write_recipe(tmp_path, values), site.settings, site.registry)
    outcome = judged(line, SAFE)
    assert (outcome.verdict.outcome, outcome.release.state) == (Outcome.INCONCLUSIVE, State.REJECTED)


def test_an_experiment_is_never_submitted(site: Site, tmp_path: Path) -> None:
    line = open_small_line(write_recipe(tmp_path, recipe_values("tries") | {"purpose": "experiment"}), site.settings, site.registry)
    outcome = judged(line, SAFE)
    assert (outcome.verdict.outcome, outcome.release.state) == (Outcome.PASS, State.REJECTED)
    assert "experiment" in site.registry.history(outcome.release.id)[-1].reason


def test_judging_the_same_model_twice_ends_in_the_same_release_and_evidence(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "twice")
    first, second = judged(line, SAFE), judged(line, SAFE)
    assert (second.release.id, second.release.state) == (first.release.id, State.AWAITING_APPROVAL)
    assert second.verdict.digest == first.verdict.digest
    assert second.verdict_folder == first.verdict_folder


def stricter(values: dict[str, Any]) -> dict[str, Any]:
    values["gate"]["must"]["bleu_4"] = {"min": 100}
    return values


def test_a_waiting_release_that_fails_a_stricter_gate_waits_no_longer(site: Site, tmp_path: Path) -> None:
    """Otherwise it could still be approved on the verdict of the gate before."""
    before = judged(site.line(tmp_path / "a", "strict"), SAFE).release
    recipe = write_recipe(tmp_path / "b", stricter(recipe_values("strict")))
    outcome = judged(open_small_line(recipe, site.settings, site.registry), SAFE)
    assert outcome.verdict.outcome is Outcome.FAIL
    assert [site.registry.release(each).state for each in (before.id, outcome.release.id)] == [State.REJECTED, State.REJECTED]


def test_a_waiting_release_that_passes_on_other_terms_waits_as_a_new_release_with_the_new_evidence(site: Site, tmp_path: Path) -> None:
    before = judged(site.line(tmp_path / "a", "terms"), SAFE).release
    values = recipe_values("terms")
    values["gate"]["alpha"] = 0.04
    outcome = judged(open_small_line(write_recipe(tmp_path / "b", values), site.settings, site.registry), SAFE)
    assert site.registry.release(before.id).state is State.REJECTED
    assert (outcome.release.id, outcome.release.state) == ("terms-3", State.AWAITING_APPROVAL)
    assert outcome.release.evidence_digest == evidence_digest(outcome.release.model_digest, outcome.verdict, parity_of(outcome))


def test_a_model_that_the_server_renders_in_another_way_than_training_is_rejected(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "rendered")
    merged = merged_model(line, SAFE + " odd")
    release = register(line, merged)
    with pytest.raises(ParityBroken, match="is not served as it was trained"):
        evaluate(line, release, merged)
    assert site.registry.release(release.id).state is State.REJECTED
    assert release.id not in site.registry.snapshot().leases


def test_the_parity_report_lies_beside_the_scorecard_and_says_what_was_compared(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "compared")
    outcome = judged(line, SAFE)
    beside = evaluate(line, outcome.release).folder / PARITY_FOLDER
    report = ParityReport.read(beside)
    assert report == parity_of(outcome)
    assert (report.holds, report.against_trainer, report.subject) == (True, True, outcome.release.id)
    assert report.weights_sha256 == weights_of(MergedModel.read(outcome.release.model_dir).files)


def test_the_champion_is_compared_with_its_record_alone_and_its_report_says_so(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "champions")
    report = ParityReport.read(evaluate(line, keep_champion_serving(line, stages.fetch_base(line))).folder / PARITY_FOLDER)
    assert (report.holds, report.against_trainer, report.compared) == (True, False, 0)
    assert list(report.weights_sha256) == ["model.safetensors"]


def test_a_candidate_that_was_never_compared_with_its_trainer_passes_no_gate(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "uncompared")
    merged = merged_model(line, SAFE)
    release = register(line, merged)
    with pytest.raises(ParityBroken, match="is not one of model"):
        gate(line, release, (evaluate(line, release), None, Together()), merged, dataset(line))


def test_a_broken_parity_names_the_likeliest_cause_and_what_to_do_and_its_report_is_kept(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "named")
    merged = merged_model(line, SAFE + " odd")
    with pytest.raises(ParityBroken, match="most likely: another template") as broken:
        evaluate(line, register(line, merged), merged)
    assert "chat_template.jinja" in broken.value.do
    assert len(broken.value.what.splitlines()) == 4
    kept = [ParityReport.read(path.parent) for path in site.settings.home.glob(f"scorecards/*/{PARITY_FOLDER}/record.json")]
    assert [report.likely for report in kept if report.subject == "named-1"] == [FaultKind.TEMPLATE]


def test_a_model_that_does_not_start_is_neither_judged_nor_promoted(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "broken")
    merged = merged_model(line, SAFE)
    release = register(line, merged)
    (merged.folder / "model.safetensors").write_text("Call 912 now.", encoding="utf-8")
    with pytest.raises(ServingFailed, match=r"model\.safetensors has other bytes"):
        evaluate(line, release)
    site.registry.release_slot(release.id)


def test_without_a_champions_card_the_absolute_conditions_decide(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "alone")
    merged = merged_model(line, SAFE)
    release = register(line, merged)
    outcome = gate(line, release, (evaluate(line, release, merged), None, Together()), merged, dataset(line))
    assert (outcome.verdict.outcome, outcome.champion) == (Outcome.PASS, None)
