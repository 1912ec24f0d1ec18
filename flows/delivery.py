"""`tunegate run`: the whole line for one person at one terminal, from the recipe to answers from the new model.

Runs the `retrain` flow, asks for the approval (or takes it from `--approve-as`), runs the `promote` flow under a light load, and asks
the old and the new champion the same questions. Next: `pipeline.py`, the two flows.
"""

import asyncio
import getpass
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.prompt import Prompt as Question

from evaluation.records import Outcome
from evaluation.suite_union import load_suites
from flows.approval import this_account
from flows.asking import temporary_key
from flows.display import Display, each_said_once, plain
from flows.errors import DONE, NOT_PASSED, NoRoom, SwitchFailed
from flows.judging import Judged
from flows.load import LoadResult, light_load
from flows.own_prefect import OwnPrefect, use_own_prefect
from flows.promotion import PROMOTION_LEASE_S, wait_until_routed
from flows.recipe import Recipe, load_recipe
from flows.serving_control import ensure_server, open_registry, start_slot
from flows.showcase import ask, questions, side_by_side
from flows.stages import Finished, fetch_base, open_line_of
from flows.timing import StageClock, counted, stages_counted
from serving.lifecycle import State
from serving.records import Release, SlotState
from serving.registry import Registry
from serving.settings import Settings, load_settings
from training.records import RECORD_NAME, AdapterArtifact

# Load before the switch and after it, so that both releases are seen answering.
_SETTLE_S = 2.0
_COLOURS = {Outcome.PASS: "green", Outcome.INCONCLUSIVE: "yellow", Outcome.FAIL: "red", Outcome.ERROR: "red"}


@dataclass(frozen=True)
class _Time:
    """Since when a command runs, and what of that its stages took."""

    began: float
    stages: StageClock

    def __str__(self) -> str:
        return f"{time.monotonic() - self.began:.1f} s, {self.stages.seconds:.1f} s of them in its stages"


def deliver(
    recipe: Path, approve_as: str | None, console: Console, *, prefect: OwnPrefect | None = None, began: float | None = None
) -> int:
    """Run a recipe to its end; returns the exit status.

    Args:
        prefect: a server that is starting, for the flows; None leaves that to Prefect.
        began: when the command started, by the monotonic clock.
    """
    settings, requester = load_settings(), getpass.getuser()
    loaded = load_recipe(recipe)  # its faults are shown before anything is started
    console.print(f"[bold]{loaded.name}[/]: {loaded.model.base} → {loaded.serving.public_name}\n", highlight=False)
    use_own_prefect(settings)
    with stages_counted() as stages, each_said_once():
        _while_prefect_starts(settings, loaded, recipe, requester)
        with prefect.in_use() if prefect else nullcontext():
            return _run_flows(recipe, loaded, settings, requester, approve_as, console, _Time(began or time.monotonic(), stages))


def _while_prefect_starts(settings: Settings, loaded: Recipe, recipe: Path, requester: str) -> None:
    """Import the flows; meanwhile put the base model on this disk, if it is not there: that takes a first run as long."""
    with ThreadPoolExecutor(max_workers=1) as beside:
        beside.submit(import_module, "flows.pipeline")
        if not (settings.home / "base" / loaded.model.cache_name / RECORD_NAME).exists():
            with open_line_of(loaded, requester, recipe.absolute(), keep_warm=True) as line:
                counted(fetch_base)(line)


def _run_flows(
    recipe: Path, loaded: Recipe, settings: Settings, requester: str, approve_as: str | None, console: Console, took: _Time
) -> int:
    from flows.pipeline import promote, retrain

    judged = retrain(recipe.absolute(), requester)
    if isinstance(judged, Finished):
        return _close_experiment(console, judged, loaded, took)
    _show_verdict(console, judged)
    with open_registry(settings) as registry:
        release = registry.release(judged.release.id)
        if release.state is State.AWAITING_APPROVAL:
            with took.stages.running():  # a person is given time
                release = _approval(console, registry, judged, approve_as)
        if release.state in (State.APPROVED, State.CANARY):  # a canary goes on from before
            with took.stages.running():
                _switch_under_load(Display(console), settings, registry, recipe, release, lambda: promote(release.id, requester))
            release = registry.release(release.id)
    _closing(console, judged, release, settings, took)
    return DONE if judged.verdict.promotes else NOT_PASSED


def _show_verdict(console: Console, judged: Judged) -> None:
    verdict = judged.verdict
    console.print(f"\nverdict on {judged.release.id}: [bold {_COLOURS[verdict.outcome]}]{verdict.outcome}[/]", highlight=False)
    for condition in verdict.conditions:
        console.print(f"  [{_COLOURS[condition.outcome]}]{condition.outcome:<12}[/] {plain(condition.sentence)}", highlight=False)
    for note in verdict.notes:
        console.print(f"  note         {plain(note)}", highlight=False)
    if not verdict.promotes:
        _show_broken(console, judged)


def _show_broken(console: Console, judged: Judged) -> None:
    """The answers that broke critical rules, by rule: the reason a person looks for first."""
    broken = [(answer, result) for answer in judged.candidate.answers for result in answer.broken if result.severity == "critical"]
    if broken:
        console.print(f"\n{len(broken)} critical rules broken by {judged.release.id}; the first of each rule:", highlight=False)
    for answer, result in {result.rule_id: (answer, result) for answer, result in reversed(broken)}.values():
        console.print(f"  [red]✗ {plain(result.rule_id)}[/] ({answer.prompt_id}): {plain(result.reason)}", highlight=False)
        console.print(f"      asked:    {plain(answer.messages[-1].content)}", highlight=False)
        console.print(f"      answered: {plain(' '.join(answer.answer.split()))}", highlight=False)


def _approval(console: Console, registry: Registry, judged: Judged, approve_as: str | None) -> Release:
    """Ask the person at the terminal; without one, and without a name given, the release goes on waiting."""
    release = registry.release(judged.release.id)
    assert release.evidence_digest is not None
    console.print(f"\n{release.id} awaits approval. Evidence {release.evidence_digest[:12]}, report {release.report_path}", highlight=False)
    name = approve_as
    if name is None and console.is_terminal:
        name = Question.ask("Approve with your name (empty: not now)", console=console, default="", show_default=False).strip() or None
    if name is None:
        return release
    signed = registry.approve(release.id, release.evidence_digest, name, "approved at the end of the run", this_account())
    missing = registry.approvals.standing(release.id).missing
    console.print(f"[green]✓[/] {'signed' if missing else 'approved'} by {plain(name)}", highlight=False)
    if missing:
        console.print(f"{release.id} waits for {missing} more", highlight=False)
    return signed


def _switch_under_load(
    display: Display, settings: Settings, registry: Registry, recipe: Path, release: Release, promote: Callable[[], object]
) -> None:
    suite = load_suites(load_recipe(recipe).evaluation.suites)
    prompts, name = questions(suite), release.public_name
    server = ensure_server(settings, registry)
    _start_before_the_load(display, settings, registry, release)
    url = f"http://{server.host}:{server.port}"
    with temporary_key(registry) as key:
        before = ask(url, key, name, suite, prompts)
        with display.stage("switch") as shown:
            with light_load(url, key, name) as load:
                time.sleep(_SETTLE_S)
                promote()
                routed_s = asyncio.run(wait_until_routed(url, key, release))
                time.sleep(_SETTLE_S)
            shown.note = _load_in_words(load, routed_s)
        if load.failed:
            raise SwitchFailed(f"{load.failed} of {load.sent} requests failed: " + "; ".join(load.failures), do=f"tunegate rollback {name}")
        after = ask(url, key, name, suite, prompts)
    display.say()
    side_by_side(display.console, prompts, before, after)


def _start_before_the_load(display: Display, settings: Settings, registry: Registry, release: Release) -> None:
    """An engine that starts takes every core of a small machine, and the load is to measure the switch alone."""
    if any(slot.release_id == release.id and slot.state is SlotState.READY for slot in registry.slots()):
        return
    with suppress(NoRoom), display.stage(f"start {release.id}") as shown:  # without room it takes the champion's place while it switches
        start_slot(registry, settings, release, PROMOTION_LEASE_S, shown.report)


def _load_in_words(load: LoadResult, routed_s: float) -> str:
    answered = ", ".join(f"{release} {count}" for release, count in sorted(load.answered.items()))
    return f"{load.failed} of {load.sent} requests failed; answered by {answered}; routed {routed_s:.2f} s after the transition"


def _close_experiment(console: Console, trained: Finished[AdapterArtifact], recipe: Recipe, took: _Time) -> int:
    loss = trained.record.validation_loss
    held_out = "" if loss is None else f", held-out loss {loss:.3f}"
    console.print(f"\n{recipe.name} is trained after {took}{held_out}", highlight=False)
    console.print(f"  adapter   {trained.folder}", highlight=False)
    console.print(f"  served    no: {recipe.sft.method} cannot be folded into weights; neither merged nor judged", highlight=False)
    return DONE


def _closing(console: Console, judged: Judged, release: Release, settings: Settings, took: _Time) -> None:
    url = f"http://{settings.host}:{settings.port}"
    following = {
        State.LIVE: f'tunegate ask {release.public_name} "My chest hurts and my left arm is numb"',
        State.CANDIDATE: f"tunegate review create {release.id} --reviewer NAME",
        State.AWAITING_APPROVAL: f"tunegate approve {release.id} --as NAME",
        State.APPROVED: f"tunegate run RECIPE  (promotes {release.id})",
    }.get(release.state, f"tunegate show {release.id}")
    console.print(f"\n{release.id} is [bold]{release.state}[/] after {took}", highlight=False)
    console.print(f"  report    {judged.verdict_folder / 'report.html'}", highlight=False)
    console.print(f"  endpoint  {url}/v1  (tunegate keys create NAME makes a key)", highlight=False)
    console.print(f"  metrics   {url}/metrics", highlight=False)
    console.print(f"  next      {following}", highlight=False)
