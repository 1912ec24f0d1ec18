"""Verdicts and policies as a person reads them, and where their records are found. Knows nothing of how they are decided."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from evaluation.aggregates import METRICS
from evaluation.config import SPEED, GateSection, MetricName
from evaluation.records import Condition, Outcome, Preferences, Scorecard, SideBySide, Verdict
from evaluation.wording import count, in_words, margin_in_words
from flows.display import plain
from flows.serving_control import open_registry
from serving.records import Release
from serving.settings import load_settings
from training.errors import InputError
from training.records import RECORD_NAME

COLOURS = {Outcome.PASS: "green", Outcome.INCONCLUSIVE: "yellow", Outcome.FAIL: "red", Outcome.ERROR: "red"}


def read_card(path: Path) -> Scorecard:
    """A scorecard by its folder or its record.

    Raises:
        InputError: nothing is there.
        RecordError: what is there is no scorecard, or was altered.
    """
    return Scorecard.read(_folder(path, "scorecard"))


def read_speed(path: Path) -> SideBySide:
    """A side-by-side measurement by its folder or its record.

    Raises:
        InputError: nothing is there.
        RecordError: what is there is none, or was altered.
    """
    return SideBySide.read(_folder(path, "side-by-side measurement"))


def read_preferences(path: Path) -> Preferences:
    """A judge's preferences by their folder or record.

    Raises:
        InputError: nothing is there.
        RecordError: what is there are none, or they were altered.
    """
    return Preferences.read(_folder(path, "record of preferences"))


def find_verdict(what: str) -> Verdict:
    """A verdict by its folder or record, or the newest one on a release.

    Raises:
        InputError: the release has not been judged.
        UnknownRelease: there is neither such a file nor such a release.
    """
    path = Path(what)
    if path.exists() or path.name == RECORD_NAME:
        return Verdict.read(_folder(path, "verdict"))
    settings = load_settings()
    with open_registry(settings) as registry:
        release = registry.release(what)
    if release.report_path is not None:
        return Verdict.read(release.report_path.parent)
    found = sorted(_verdicts_on(settings.home, release), key=lambda verdict: verdict.created_at)
    if not found:
        raise InputError(f"{what} has no verdict", why=f"it is {release.state}, and no gate has judged it", do="tunegate run RECIPE")
    return found[-1]


def show_verdict(console: Console, verdict: Verdict) -> None:
    """The outcome, then every condition, the worst first."""
    console.print(f"verdict: [bold {COLOURS[verdict.outcome]}]{verdict.outcome}[/]  ({_digests(verdict)})", highlight=False, soft_wrap=True)
    order = [Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
    for condition in sorted(verdict.conditions, key=lambda each: order.index(each.outcome)):
        _show_condition(console, condition)
    for note in verdict.notes:
        console.print(f"\nnote: {plain(note)}", highlight=False, soft_wrap=True)


def policy_in_words(policy: GateSection) -> list[tuple[str, str]]:
    """(condition, what it asks for) of everything a policy asks, in its own order."""
    asked = [("min_prompts", f"at least {count(policy.min_prompts, 'prompt')} have to be answered")]
    asked += [(f"must.{name}", f"{_metric(name)}: {in_words(bound)}, whatever the champion does") for name, bound in policy.must.items()]
    asked += [
        (
            f"must_not_regress.{name}",
            f"{_metric(name)}: {margin_in_words(margin, METRICS[name].higher_is_better)}, shown on the same prompts{_by_turns(name)}",
        )
        for name, margin in policy.must_not_regress.items()
    ]
    if policy.improvement == "any" and policy.should_improve:
        asked.append(("should_improve", f"at least one of {', '.join(policy.should_improve)} has to be shown better, {_corrected(policy)}"))
    else:
        asked += [
            (f"should_improve.{name}", f"{_metric(name)}: has to be shown better, same prompts{_by_turns(name)}")
            for name in policy.should_improve
        ]
    if policy.flip_budget is not None:
        limits = [count(policy.flip_budget.max, "prompt")] if policy.flip_budget.max is not None else []
        limits += [f"{policy.flip_budget.max_share:.1%} of the prompts"] if policy.flip_budget.max_share is not None else []
        asked.append(("flip_budget", f"at most {' and '.join(limits)} that the champion passed may be broken"))
    asked += _slices_in_words(policy)
    if policy.judge_win_rate is not None:
        share = f"on at least {policy.judge_win_rate.min_win_rate:.0%} of the prompts, a tie as half; what breaks a rule never wins"
        asked.append(("judge_win_rate", f"the judge model prefers the candidate's answers {share}"))
    sure = f"each claim may be wrong with probability {policy.alpha:g}"
    return [*asked, ("alpha", f"{sure}; only a candidate that passes every condition is promoted")]


def show_policy(console: Console, policy: GateSection) -> None:
    """What a policy asks for, one line a condition."""
    for name, asks in policy_in_words(policy):
        console.print(f"[bold]{plain(name)}[/]\n    {plain(asks)}", highlight=False, soft_wrap=True)
    if policy.require_champion:
        console.print("[bold]require_champion[/]\n    without a champion's scorecard the verdict is ERROR", highlight=False, soft_wrap=True)


def _show_condition(console: Console, condition: Condition) -> None:
    console.print(
        f"\n[{COLOURS[condition.outcome]}]{condition.outcome:<13}[/][bold]{plain(condition.name)}[/]", highlight=False, soft_wrap=True
    )
    console.print(f"    {plain(condition.sentence)}", highlight=False, soft_wrap=True)
    if facts := list(_facts(condition)):
        console.print(f"    [dim]{plain(' · '.join(facts))}[/]", highlight=False, soft_wrap=True)


def _facts(condition: Condition) -> Iterator[str]:
    if condition.prompts is not None and condition.metric is not None:
        yield count(condition.prompts, "prompt")
    if condition.measured is not None and condition.metric is not None:
        yield f"candidate {condition.measured:.4g}"
    if condition.champion is not None:
        yield f"champion {condition.champion:.4g}"
    if condition.interval is not None:
        form = ".1%" if condition.relative else ".4g"
        low, high = ("open" if end is None else format(end, form) for end in condition.interval)
        yield f"{'difference' if condition.champion is not None else 'interval'} {low} … {high}"
    if condition.p_value is not None:
        yield f"p {condition.p_value:.2g}"
    yield f"asked: {condition.threshold}"


def _slices_in_words(policy: GateSection) -> Iterator[tuple[str, str]]:
    for part in policy.slices:
        where = f"in {' and '.join(part.only)}" if part.only else f"in every {part.each}"
        few = f"; fewer than {count(part.min_prompts, 'prompt')} there are INCONCLUSIVE"
        for name, bound in part.must.items():
            yield f"slices.{part.each}.must.{name}", f"{_metric(name)}: {in_words(bound)} {where}{few}"
        for name, margin in part.must_not_regress.items():
            allowed = margin_in_words(margin, METRICS[name].higher_is_better)
            yield f"slices.{part.each}.must_not_regress.{name}", f"{_metric(name)}: {allowed}, shown {where}{few}"
        for name in part.not_shown_worse:
            yield f"slices.{part.each}.not_shown_worse.{name}", f"{_metric(name)}: {where} not shown to be worse, {_corrected(policy)}{few}"


def _by_turns(name: MetricName) -> str:
    return ", both servers timed by turns" if name in SPEED else ""


def _corrected(policy: GateSection) -> str:
    return f"corrected for their number by {'Holm' if policy.correction == 'holm' else 'Benjamini and Hochberg'}"


def _metric(name: MetricName) -> str:
    return f"{name} ({METRICS[name].unit}, {'higher' if METRICS[name].higher_is_better else 'lower'} is better)"


def _digests(verdict: Verdict) -> str:
    champion = f", champion {verdict.champion_digest[:12]}" if verdict.champion_digest else ", no champion"
    return f"{verdict.created_at}, candidate {verdict.candidate_digest[:12]}{champion}, policy {verdict.policy_digest[:12]}"


def _verdicts_on(home: Path, release: Release) -> Iterator[Verdict]:
    """Those that the recipe's runs hold on a scorecard of the release's model."""
    cards = {Scorecard.read(path.parent).digest for path in home.glob(f"scorecards/{release.model_digest[:12]}-*/{RECORD_NAME}")}
    for path in home.glob(f"runs/{release.recipe_name}/verdict-*/{RECORD_NAME}"):
        verdict = Verdict.read(path.parent)
        if verdict.candidate_digest in cards:
            yield verdict


def _folder(path: Path, kind: str) -> Path:
    folder = path.parent if path.name == RECORD_NAME else path
    if not (folder / RECORD_NAME).is_file():
        raise InputError(
            f"{path}: no {kind} is there", why=f"a {kind} is a folder with a {RECORD_NAME}", do="name that folder or its record"
        )
    return folder
