"""What is measured of candidate and champion together, over a real server with fake engines."""

from pathlib import Path

from flows import stages
from flows.comparing import Together, compare
from flows.judging import evaluate, gate, keep_champion_serving, register
from tests.fakes_flows import SAFE, Site, dataset, merged_model, open_small_line, recipe_values, write_recipe

POLICY = {
    "must": {"critical_failures": {"max": 0}},
    "must_not_regress": {"latency_p95_s": {"by_ratio": 9.0}},
    "min_prompts": 2,
}


def test_speed_is_measured_anew_for_scorecards_that_are_kept_and_once_for_two_models(site: Site, tmp_path: Path) -> None:
    """Two prompts and one question to warm up are three chats for each of the two servers."""
    line = open_small_line(write_recipe(tmp_path, recipe_values("timed") | {"gate": POLICY}), site.settings, site.registry)
    champion = keep_champion_serving(line, stages.fetch_base(line))
    merged = merged_model(line, SAFE)
    release = register(line, merged)
    ours, theirs = evaluate(line, release, merged), evaluate(line, champion)
    before = site.asked(release), site.asked(champion)
    together = compare(line, release, champion, ours, theirs)
    assert (site.asked(release), site.asked(champion)) == (before[0] + 3, before[1] + 3)
    assert compare(line, release, champion, ours, theirs) == together
    assert (site.asked(release), site.asked(champion)) == (before[0] + 3, before[1] + 3)

    assert together.speed is not None
    judged = gate(line, release, (ours, theirs, together), merged, dataset(line))
    assert judged.verdict.speed_digest == together.speed.record.digest
    (condition,) = [each for each in judged.verdict.conditions if each.metric == "latency_p95_s"]
    assert "side by side" in condition.sentence


def test_nothing_is_asked_that_the_policy_does_not_compare(site: Site, tmp_path: Path) -> None:
    line = site.line(tmp_path, "untimed")
    champion = keep_champion_serving(line, stages.fetch_base(line))
    merged = merged_model(line, SAFE)
    release = register(line, merged)
    assert compare(line, release, champion, evaluate(line, release, merged), evaluate(line, champion)) == Together()
