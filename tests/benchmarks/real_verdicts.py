"""Real models before a real gate: the same model gets the same verdict, and bad candidates are stopped, each by what should stop it.

    python -m tests.benchmarks.real_verdicts WORK --base DIR --good DIR [--poisoned DIR] [--overtrained DIR] [--step NAME …]

The folders are a base model and merged models with their records, as `tunegate run` leaves them. WORK keeps scorecards and reports, so
that a run which was stopped goes on; the tables are made of what is there. Steps:

- `greedy`: the good model and the base answer the demo's suite as it stands (greedily) five and four times, every second time on a server
  started anew.
- `runs`: the same with temperature 0.7, seeds of their own.
- `speed`: both servers at once, timed by turns five times.
- `template`, `base_served`, `unmerged`, `poisoned`, `overtrained`: a bad candidate's server; parity first, and the gate where parity holds.
"""

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.aggregates import measure
from evaluation.client import Endpoint
from evaluation.config import GateSection
from evaluation.gate import decide
from evaluation.parity import check_parity, identity_only
from evaluation.parity_records import ParityReport, TrainerView
from evaluation.records import Outcome, Scorecard, SideBySide, Verdict
from evaluation.scoring import score_endpoint
from evaluation.side_by_side import measure_side_by_side
from evaluation.suite import Suite
from evaluation.suite_union import load_suites
from flows.recipe import Recipe, load_recipe
from flows.rendering import view_of_trainer, weights_of
from tests.benchmarks.evaluation_speed import serve
from tests.fakes_parity import write_merge_record
from training.progress import silent
from training.records import RECORD_NAME, BaseModelRecord, MergedModel, digest_files

RECIPE = Path(__file__).resolve().parents[2] / "flows" / "recipes" / "demo.yaml"
GOOD_RUNS, BASE_RUNS, TIMES = 5, 4, 5
TEMPERATURE = 0.7
STEPS = ("greedy", "runs", "speed", "template", "base_served", "unmerged", "poisoned", "overtrained")
# The base's own words and turns, and one more sentence before each conversation.
OTHER_TEMPLATE = "{{ '<|im_start|>system\nAnswer at length.<|im_end|>\n' }}"


@dataclass(frozen=True)
class Lab:
    """Where everything lies, and by what it is judged."""

    work: Path
    base: Path
    good: Path
    recipe: Recipe
    suite: Suite

    def has(self, name: str) -> bool:
        """Whether there is a scorecard of that name."""
        return (self.work / f"card-{name}" / RECORD_NAME).exists()

    def card(self, name: str, endpoint: Endpoint, digest: str, *, runs: int = 1) -> Scorecard:
        """The scorecard of a server; several runs are drawn with a temperature."""
        out = self.work / f"card-{name}"
        if (out / RECORD_NAME).exists():
            return Scorecard.read(out)
        section, suite = self.recipe.evaluation.model_copy(update={"timeout_s": 900.0}), self.suite
        if runs > 1:
            section = section.model_copy(update={"repetitions": runs})
            suite = drawn(suite)
        return score_endpoint(endpoint, suite, section, model_digest=digest, subject=name, out=out, report=silent)


def drawn(suite: Suite) -> Suite:
    """The suite with sampling."""
    return suite.model_copy(update={"generation": suite.generation.model_copy(update={"temperature": TEMPERATURE})})


def main() -> None:
    """Do the steps that are open, then print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    for name in ("base", "good", "poisoned", "overtrained"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--step", nargs="*", choices=STEPS, default=STEPS)
    asked = parser.parse_args()
    recipe = load_recipe(RECIPE)
    lab = Lab(asked.work, asked.base, asked.good, recipe, load_suites(recipe.evaluation.suites))
    lab.work.mkdir(parents=True, exist_ok=True)
    for step in asked.step:
        if step == "greedy":
            repeat_greedily(lab)
        elif step == "runs":
            repeat(lab)
        elif step == "speed":
            time_both(lab)
        else:
            given = getattr(asked, step, None)
            if step in ("poisoned", "overtrained") and given is None:
                print(f"{step}: no folder was given, so it is left out")
            else:
                stop(lab, step, given)
    print_greedy(lab)
    print_same(lab)
    print_stopped(lab)


def repeat_greedily(lab: Lab) -> None:
    """Whole evaluations of the good model and of the base, each on one of two servers."""
    digests = MergedModel.read(lab.good).digest, BaseModelRecord.read(lab.base).digest
    for name, folder, digest, runs in (("good", lab.good, digests[0], GOOD_RUNS), ("base", lab.base, digests[1], BASE_RUNS)):
        for server in (0, 1):
            open_ones = [f"greedy-{name}-{run}" for run in range(server, runs, 2) if not lab.has(f"greedy-{name}-{run}")]
            if open_ones:
                with serve(folder, lab.work / f"slot-greedy-{name}-{server}") as endpoint:
                    for card in open_ones:
                        lab.card(card, endpoint, digest)


def repeat(lab: Lab) -> None:
    """Several drawn runs of the good model and of the base, and one greedy run of the base as the champion's."""
    base, good = BaseModelRecord.read(lab.base).digest, MergedModel.read(lab.good).digest
    for name, folder, digest, runs in (("good-runs", lab.good, good, GOOD_RUNS), ("base-runs", lab.base, base, BASE_RUNS)):
        if not lab.has(name):
            with serve(folder, lab.work / f"slot-{name}") as endpoint:
                lab.card(name, endpoint, digest, runs=runs)
                if folder == lab.base:
                    lab.card("base", endpoint, digest)


def time_both(lab: Lab) -> None:
    """Good and base, by turns, several times."""
    models = (MergedModel.read(lab.good).digest, BaseModelRecord.read(lab.base).digest)
    if (lab.work / f"speed-{TIMES - 1}" / RECORD_NAME).exists():
        return
    with serve(lab.good, lab.work / "slot-good") as ours, serve(lab.base, lab.work / "slot-base") as theirs:
        for number in range(TIMES):
            out = lab.work / f"speed-{number}"
            measure_side_by_side(ours, theirs, drawn(lab.suite), lab.recipe.evaluation, models=models, out=out, report=silent)


def stop(lab: Lab, name: str, given: Path | None) -> None:
    """Serve a bad candidate, compare it with its trainer, and judge it where that holds."""
    out = lab.work / f"parity-{name}"
    if (out / RECORD_NAME).exists() and (not ParityReport.read(out).holds or (lab.work / f"card-{name}" / RECORD_NAME).exists()):
        return
    served, trained = candidate(lab, name, given)
    view = view_of(lab, trained, lab.work / f"view-{trained.name}")
    with serve(served, lab.work / f"slot-{name}") as endpoint:
        # Which bytes were served is left out for all but `unmerged`, so that what the server does is shown to be enough.
        weights = weights_of(digest_files(served)) if name == "unmerged" else view.weights_sha256
        identity = identity_only(name, view.model_digest, lab.suite.digest, weights)
        report = check_parity(
            endpoint,
            lab.suite,
            lab.recipe.evaluation,
            view,
            identity,
            context_tokens=lab.recipe.serving.max_model_len,
            dtype="bfloat16",
        )
        report.write(out)
        if report.holds:
            lab.card(name, endpoint, view.model_digest)


def candidate(lab: Lab, name: str, given: Path | None) -> tuple[Path, Path]:
    """(folder that is served, folder of the model that was trained)."""
    if given is not None:
        return given, given
    if name == "base_served":
        return lab.base, lab.good
    copy = lab.work / name
    if not copy.exists():
        source = lab.good if name == "template" else lab.base
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(RECORD_NAME))
        if name == "unmerged":
            write_merge_record(lab.base, copy)
        else:
            path = copy / "chat_template.jinja"
            path.write_text(OTHER_TEMPLATE + path.read_text(encoding="utf-8"), encoding="utf-8")
    return (copy, lab.good) if name == "template" else (copy, copy)


def view_of(lab: Lab, model: Path, out: Path) -> TrainerView:
    """What the render stage computes of a merged model."""
    if (out / RECORD_NAME).exists():
        return TrainerView.read(out)
    merged, base = MergedModel.read(model), BaseModelRecord.read(lab.base)
    longest, at = lab.recipe.serving.max_model_len, merged.created_at
    return view_of_trainer(model, merged, lab.base, base, lab.suite, longest, out, at)


def run_of(card: Scorecard, number: int) -> Scorecard:
    """One of several drawn runs as a scorecard of its own."""
    answers = tuple(each.model_copy(update={"repetition": 0}) for each in card.answers if each.repetition == number)
    return card.model_copy(update={"answers": answers, "repetitions": 1, "metrics": measure(answers, card.tasks)})


def print_greedy(lab: Lab) -> None:
    """The verdicts of the same models, asked again and again with the suite's own settings; speed, which was not measured, left out."""
    names = [f"greedy-good-{run}" for run in range(GOOD_RUNS)], [f"greedy-base-{run}" for run in range(BASE_RUNS)]
    if not all(lab.has(name) for name in (*names[0], *names[1])):
        return
    good, base = ([Scorecard.read(lab.work / f"card-{name}") for name in side] for side in names)
    policy = without_speed(lab.recipe.gate)
    print(f"\nwith the suite's own settings, {GOOD_RUNS} runs of the good model and {BASE_RUNS} of the base, on two servers each:")
    for title, ours, theirs in (("good against base", good, base), ("good against itself", good, good), ("base against good", base, good)):
        verdicts = [decide(one, other, policy) for one in ours for other in theirs if one is not other]
        print(f"  {title:<20} {counted(verdicts)}")
    alike = [len({tuple(answer.answer for answer in card.answers) for card in side}) for side in (good, base)]
    print(f"  different sets of answers: {alike[0]} of {GOOD_RUNS} and {alike[1]} of {BASE_RUNS}")


def print_same(lab: Lab) -> None:
    """The verdicts of the same two models, judged again and again."""
    folders = [lab.work / f"card-{name}" for name in ("good-runs", "base-runs")]
    if not all((folder / RECORD_NAME).exists() for folder in folders):
        return
    good, base = (Scorecard.read(folder) for folder in folders)
    speeds = [SideBySide.read(path) for path in sorted(lab.work.glob("speed-*")) if (path / RECORD_NAME).exists()]
    policy = lab.recipe.gate if speeds else without_speed(lab.recipe.gate)
    verdicts = [
        decide(
            run_of(good, ours), run_of(base, theirs), policy, speed=speeds[(ours * BASE_RUNS + theirs) % len(speeds)] if speeds else None
        )
        for ours in range(GOOD_RUNS)
        for theirs in range(BASE_RUNS)
    ]
    print(
        f"\ngood model against base, {GOOD_RUNS} × {BASE_RUNS} drawn runs, temperature {TEMPERATURE}, speed measured {len(speeds)} times:"
    )
    print(f"  {counted(verdicts)}")
    runs = [run_of(good, number) for number in range(GOOD_RUNS)]
    same = [decide(one, other, without_speed(lab.recipe.gate)) for one in runs for other in runs if one is not other]
    print(f"good model against itself, {len(same)} ordered pairs of runs (must improve, and cannot):\n  {counted(same)}")


def counted(verdicts: Sequence[Verdict]) -> str:
    """How often each outcome came, and of the conditions that did not always end alike, how they ended."""
    ends: dict[str, Counter[Outcome]] = {}
    for verdict in verdicts:
        for condition in verdict.conditions:
            ends.setdefault(condition.name, Counter())[condition.outcome] += 1
    mixed = "; ".join(f"{name}: {words(found)}" for name, found in ends.items() if len(found) > 1)
    return f"{words(Counter(each.outcome for each in verdicts))}{f' (conditions that moved: {mixed})' if mixed else ''}"


def words(found: Counter[Outcome]) -> str:
    """PASS 20/20, or several of that kind."""
    return ", ".join(f"{outcome} {times}/{found.total()}" for outcome, times in found.most_common())


def without_speed(policy: GateSection) -> GateSection:
    """The policy for scorecards that no side-by-side measurement belongs to."""
    return policy.model_copy(
        update={"must_not_regress": {name: margin for name, margin in policy.must_not_regress.items() if "latency" not in name}}
    )


def print_stopped(lab: Lab) -> None:
    """Which bad candidate was stopped by what."""
    champion = lab.work / "card-base"
    print(f"\n{'bad candidate':<14} {'stopped by':<10} how")
    for name in STEPS[STEPS.index("template") :]:
        if (lab.work / f"parity-{name}" / RECORD_NAME).exists():
            by, how = next(_stops(lab, name, champion))
            print(f"{name:<14} {by:<10} {how}")


def _stops(lab: Lab, name: str, champion: Path) -> Iterator[tuple[str, str]]:
    report = ParityReport.read(lab.work / f"parity-{name}")
    if not report.holds:
        kinds = Counter(str(fault.kind) for fault in report.faults)
        yield "parity", f"{report.likely}; {json.dumps(kinds)}"
        return
    if not (champion / RECORD_NAME).exists():
        yield "–", "not judged yet: the step `runs` asks the model in production"
        return
    verdict = decide(Scorecard.read(lab.work / f"card-{name}"), Scorecard.read(champion), without_speed(lab.recipe.gate))
    failed = [f"{each.name} {each.outcome}" for each in verdict.conditions if each.outcome is not Outcome.PASS]
    yield ("gate" if not verdict.promotes else "NOTHING"), f"{verdict.outcome}: {', '.join(failed)}"


if __name__ == "__main__":
    main()
