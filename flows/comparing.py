"""What is measured of candidate and champion together, when the gate is about to decide: their speed side by side, a judge's preference.

Each record belongs to two models or two scorecards and is kept: both servers had the same machine in the same minutes, so a measurement
stays fair however old it gets. Next: `evaluation/side_by_side.py` and `evaluation/judge_pairs.py`, which measure; `judging.py`.
"""

from dataclasses import dataclass

from evaluation.judge_pairs import compare_answers, judge_terms
from evaluation.records import Preferences, Scorecard, SideBySide
from evaluation.side_by_side import measure_side_by_side
from evaluation.suite_union import load_suites
from flows.serving_control import start_slot
from flows.stages import Finished, Line
from serving.records import Release
from training.records import RECORD_NAME, digest_of

# Both servers are there already, or answer soon; they are needed for this alone.
_LEASE_S = 900.0


@dataclass(frozen=True)
class Together:
    """What is known of the two; each is None where the policy does not ask for it."""

    speed: Finished[SideBySide] | None = None
    preferences: Finished[Preferences] | None = None


def compare(
    line: Line, release: Release, champion: Release, candidate_card: Finished[Scorecard], champion_card: Finished[Scorecard] | None
) -> Together:
    """Everything that the policy asks of the two together; nothing without a champion of its own."""
    if champion_card is None:
        return Together()
    return Together(compare_speed(line, release, champion), compare_by_judge(line, candidate_card.record, champion_card.record))


def compare_speed(line: Line, release: Release, champion: Release) -> Finished[SideBySide] | None:
    """How fast the two answered when they took turns."""
    if not line.recipe.gate.compares_speed:
        return None
    suite, section = load_suites(line.recipe.evaluation.suites), line.recipe.evaluation
    terms = {
        "models": [release.model_digest, champion.model_digest],
        "serving": [each.serving.model_dump(mode="json") for each in (release, champion)],
        "suite": suite.digest,
        "settings": section.side_by_side.model_dump(mode="json"),
    }
    out = line.settings.home / "scorecards" / f"speed-{digest_of(terms)[:12]}"
    if (out / RECORD_NAME).exists():
        return Finished(SideBySide.read(out), out)
    with line.display.stage("side by side") as shown:
        ours, theirs = (start_slot(line.registry, line.settings, each, _LEASE_S, shown.report) for each in (release, champion))
        models = (release.model_digest, champion.model_digest)
        record = measure_side_by_side(ours, theirs, suite, section, models=models, out=out, report=shown.report)
        shown.note = _in_words(record)
    return Finished(record, out)


def compare_by_judge(line: Line, candidate: Scorecard, champion: Scorecard) -> Finished[Preferences] | None:
    """Which answers the recipe's judge model prefers."""
    judge = line.recipe.evaluation.judge
    if line.recipe.gate.judge_win_rate is None or judge is None:
        return None
    terms = {"cards": [candidate.digest, champion.digest], "judge": judge_terms(judge)}
    out = line.settings.home / "scorecards" / f"judge-{digest_of(terms)[:12]}"
    if (out / RECORD_NAME).exists():
        return Finished(Preferences.read(out), out)
    with line.display.stage("compare by judge") as shown:
        record = compare_answers(candidate, champion, judge, out)
        shown.note = f"{judge.model} on {len(record.choices)} prompts"
    return Finished(record, out)


def _in_words(record: SideBySide) -> str:
    slowest = [max(timing.latency_s for timing in side) for side in (record.candidate, record.champion)]
    return f"{len(record.candidate)} prompts each; slowest answer {slowest[0]:.2f} s, the champion's {slowest[1]:.2f} s"
