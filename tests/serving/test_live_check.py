"""Live answers against the rules and the suite of their release: what breaks, what drifts, and what never leaves as text."""

import asyncio
import io
import json
import time
from pathlib import Path

import pytest

from evaluation.rules import SEVERITIES as RULE_SEVERITIES
from evaluation.suite import Suite, load_suite
from serving.gateway_order import Side
from serving.keeping import Kept
from serving.lifecycle import State
from serving.live_check import LiveCheck, run
from serving.live_drift import OTHER, DriftWindow, Topics
from serving.live_figures import MEASURES, SEVERITIES, Checked, NotChecked, Sample
from serving.live_reference import LiveReference, read_reference, write_reference
from serving.live_sample import LiveSample
from serving.metrics import GatewayMetrics
from serving.records import SlotState, Snapshot
from tests.fakes_gateway import slot_info
from tests.fakes_serving import bare_release

CLINIC = Path("flows/recipes/clinic_en/suite")
SAFETY = Path("flows/recipes/safety")
GOOD = "Call 911 now. Do not drive yourself; keep still and let the medics come to you."


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite(CLINIC)


@pytest.fixture
def references(suite: Suite, tmp_path: Path) -> Path:
    write_reference(tmp_path, "clinic-1", LiveReference(suites=(suite,), answers=tuple(prompt.reference for prompt in suite.prompts)))
    return tmp_path


def sample(prompt: str, answer: str, release_id: str = "clinic-1") -> Sample:
    return Sample(release=release_id, turns=(("user", prompt),), answer=answer)


def known_release() -> GatewayMetrics:
    metrics = GatewayMetrics()
    slots = (slot_info(1, SlotState.READY),)
    metrics.follow(Snapshot(generation=1, releases=(bare_release(1, State.LIVE),), slots=slots, leases={}, steps={}))
    return metrics


def value(metrics: GatewayMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_severities_are_those_of_the_rules() -> None:
    assert SEVERITIES == RULE_SEVERITIES


def test_a_reference_of_two_suites_is_read_back_as_it_was(tmp_path: Path) -> None:
    reference = LiveReference(suites=(load_suite(CLINIC), load_suite(SAFETY)), answers=("Yes.",))
    write_reference(tmp_path, "clinic-1", reference)
    read = read_reference(tmp_path, "clinic-1")
    assert read == reference


def test_an_emergency_answered_without_sending_for_help_breaks_a_critical_rule(references: Path, suite: Suite) -> None:
    """The live prompt is one of the suite's with other words around it, so it has that prompt's topic, and the topic's rules hold."""
    prompt = next(prompt for prompt in suite.prompts if prompt.topic == "chest_pain")
    check = LiveCheck(references)
    good = check.check(sample(f"Hello. {prompt.text}", prompt.reference))
    bad = check.check(sample(f"Hello. {prompt.text}", "It is nothing. Go to bed and drink some tea."))
    assert isinstance(good, Checked)
    assert isinstance(bad, Checked)
    assert good.broken["critical"] == 0
    assert bad.broken["critical"] > 0
    assert bad.window == 2
    assert set(bad.drift) == set(MEASURES)


def test_rules_of_the_added_suites_that_hold_for_everything_hold_live(suite: Suite, tmp_path: Path) -> None:
    """`no-personal-data` of the safety suite has no `when`; a social security number is personal data."""
    write_reference(tmp_path, "clinic-1", LiveReference(suites=(suite, load_suite(SAFETY)), answers=("Yes.",)))
    found = LiveCheck(tmp_path).check(sample("Who was before me?", "Jane Doe, SSN 536-22-8726, jane.doe@mail.com, +1 415 555 2671."))
    assert isinstance(found, Checked)
    assert found.broken["critical"] == 1


def test_a_prompt_that_is_none_of_the_suites_is_not_judged_by_rules_for_topics(references: Path) -> None:
    found = LiveCheck(references).check(
        sample("Is tea good for a cold chest after a swim?", "It is nothing. Go to bed and drink some tea.")
    )
    assert isinstance(found, Checked)
    assert sum(found.broken.values()) == 0


def test_a_release_without_a_reference_is_said_to_have_none(tmp_path: Path) -> None:
    assert LiveCheck(tmp_path).check(sample("Hello", "Hi")) == NotChecked(release="clinic-1", reason="no_reference")


def test_the_suites_own_prompts_and_answers_do_not_drift_and_others_do(suite: Suite) -> None:
    reference = LiveReference(suites=(suite,), answers=tuple(prompt.reference for prompt in suite.prompts))
    topics = Topics(suite.prompts)
    own, other = DriftWindow(reference, topics), DriftWindow(reference, topics)
    for prompt, topic in zip(suite.prompts, topics.of_suite(), strict=True):
        own.add(prompt.text, prompt.reference, topic)
        text = "请帮我写一首关于秋天的诗，并解释其中的比喻。" * 8
        other.add(text, "秋风起。" * 60, topics.topic(text))
    assert all(drift.index < 0.01 for drift in own.indices().values())
    assert all(drift.index > max(0.25, drift.chance) for drift in other.indices().values())


def test_a_prompt_like_none_of_the_suite_has_another_topic(suite: Suite) -> None:
    topics = Topics(suite.prompts)
    assert topics.topic("Schreib mir bitte ein Gedicht über Vergaser") == OTHER
    assert topics.topic(suite.prompts[0].text) == suite.prompts[0].topic


def test_no_word_of_a_caller_is_in_what_comes_back(references: Path) -> None:
    asked = sample("my secret is xyzzy", "the secret xyzzy is safe")
    out = io.StringIO()
    run(LiveCheck(references), io.StringIO(asked.model_dump_json() + "\n"), out)
    assert "xyzzy" not in out.getvalue()
    assert set(json.loads(out.getvalue())) == {"release", "broken", "window", "drift"}


def kept(prompt: str, answer: str, release_id: str = "clinic-1") -> Kept:
    return Kept("answer", "r", "k", {"message 0": prompt, "answer": answer}, {"release": release_id}, ["user"])


def test_so_many_a_minute_are_sampled_and_no_more() -> None:
    """Ten a minute: one every six seconds, whatever comes; 0 takes none."""
    now = [0.0]
    sampler = LiveSample(Path(), GatewayMetrics().live, per_minute=10, clock=lambda: now[0])
    wanted = []
    for second in range(60):
        now[0] = float(second)
        wanted += [second for _ in range(100) if sampler.wants("alone")]
    assert wanted == list(range(0, 60, 6))
    assert not LiveSample(Path(), GatewayMetrics().live, per_minute=0).wants("alone")


def test_half_of_the_sample_is_the_canarys_however_small_its_share() -> None:
    """20 requests a second, one in 20 to the canary: 30 a minute are 15 and 15, not 28.5 and 1.5; later, all are one's."""
    now = [0.0]
    sampler = LiveSample(Path(), GatewayMetrics().live, per_minute=30, clock=lambda: now[0])
    taken = {"canary": 0, "beside": 0, "alone": 0}
    for request in range(20 * 60 * 12):
        now[0] = request / 20
        side: Side = "alone" if now[0] >= 600 else "canary" if request % 20 == 7 else "beside"
        taken[side] += sampler.wants(side)
    assert taken == {"canary": pytest.approx(150, abs=2), "beside": pytest.approx(150, abs=2), "alone": pytest.approx(45, abs=2)}


@pytest.mark.parametrize(
    ("answer", "times", "reason"), [("", 1, "no_text"), ("x" * 40_000, 1, "too_long"), ("Hi", 33, "busy")], ids=["tool", "long", "busy"]
)
def test_what_is_not_looked_at_is_counted_by_reason(answer: str, times: int, reason: str) -> None:
    metrics = known_release()
    sampler = LiveSample(Path(), metrics.live, per_minute=10)
    for _ in range(times):
        sampler.offer(kept("Hello", answer))
    assert value(metrics, "tunegate_live_unchecked_total", release="clinic-1", reason=reason) == 1


def test_a_release_that_the_registry_does_not_know_makes_no_series() -> None:
    metrics = known_release()
    metrics.live.unchecked("made-up", "busy")
    metrics.live.checked(Checked(release="made-up", broken={}, window=1, drift={}))
    assert b"made-up" not in metrics.render()


def test_another_process_looks_at_the_sample_and_only_counts_come_back(references: Path) -> None:
    metrics = known_release()

    async def one() -> None:
        sampler = LiveSample(references, metrics.live, per_minute=10)
        task = asyncio.create_task(sampler.run())
        sampler.offer(kept("I have chest pain and my arm is numb", GOOD))
        end = time.monotonic() + 180
        while not value(metrics, "tunegate_live_checked_total", release="clinic-1") and time.monotonic() < end:
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(one())
    assert value(metrics, "tunegate_live_checked_total", release="clinic-1") == 1
    assert value(metrics, "tunegate_live_window_answers", release="clinic-1") == 1
