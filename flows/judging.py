"""From a merged model to a verdict: a release is registered, started, asked what the champion was asked, and compared.

What is judged here is the very server that will take the traffic. Next: `promotion.py`, for what follows a PASS.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from evaluation.client import Endpoint
from evaluation.gate import decide
from evaluation.lm_eval_tasks import forgetting_terms
from evaluation.records import Scorecard, Verdict
from evaluation.report import write_report
from evaluation.scoring import load_reference_tools, score_endpoint
from evaluation.suite_union import load_suites
from flows.errors import ParityBroken
from flows.rendering import Renders, compare, in_words
from flows.serving_control import ensure_server, start_slot
from flows.stages import Finished, Line
from serving.lifecycle import State
from serving.records import Release
from training.progress import silent
from training.records import RECORD_NAME, BaseModelRecord, DatasetManifest, MergedModel, digest_of

REPORT_NAME = "report.html"
# Long enough to judge and to be asked for an approval; nobody's GPU waits longer for a person.
CANDIDATE_LEASE_S = 1800.0
_WAITING = (State.AWAITING_APPROVAL, State.APPROVED)


@dataclass(frozen=True)
class Judged:
    """A release with what is known about it. `verdict_folder` holds the verdict's record and the report."""

    release: Release
    verdict: Verdict
    verdict_folder: Path
    candidate: Scorecard
    champion: Scorecard | None


def keep_champion_serving(line: Line, base: Finished[BaseModelRecord]) -> Release:
    """The release in production; the base model, where there is none yet. The server is started, and not waited for."""
    serving, registry = line.recipe.serving, line.registry
    champion = registry.champion(serving.public_name)
    if champion is None:
        first = registry.add_release(
            public_name=serving.public_name,
            model_digest=base.record.digest,
            model_dir=base.folder,
            serving=serving,
            recipe_name=line.recipe.name,
            requester=line.requester,
        )
        champion = registry.bootstrap(first.id, line.requester)
        line.display.say(f"  {champion.id}: the base model is the first champion of {serving.public_name!r}")
    server = ensure_server(line.settings, registry)
    line.display.say(f"  gateway at http://{server.host}:{server.port}, champion {champion.id}")
    return champion


def register(line: Line, merged: Finished[MergedModel]) -> Release:
    """The merged model as a candidate; the same model again is the same release while that is under way."""
    return line.registry.add_release(
        public_name=line.recipe.serving.public_name,
        model_digest=merged.record.digest,
        model_dir=merged.folder,
        serving=line.recipe.serving,
        recipe_name=line.recipe.name,
        requester=line.requester,
    )


def evaluate(line: Line, release: Release, merged: Finished[MergedModel] | None = None) -> Finished[Scorecard]:
    """The release's scorecard on the recipe's suite, measured over its own API; kept by model, suite and settings.

    With `merged`, the server must first render conversations as training did.

    Raises:
        ParityBroken: it does not; the release is rejected.
    """
    suite, section = load_suites(line.recipe.evaluation.suites), line.recipe.evaluation
    settings = section.model_dump(mode="json", include={"concurrency", "perplexity", "repetitions", "judge"})
    tasks = forgetting_terms(section.forgetting)
    terms = settings | {"suite": suite.digest, "tasks": tasks, "serving": release.serving.model_dump(mode="json")}
    out = line.settings.home / "scorecards" / f"{release.model_digest[:12]}-{digest_of(terms)[:12]}"
    if (out / RECORD_NAME).exists():
        card = Scorecard.read(out)
        line.display.reused(f"judge {release.id}", _in_words(card))
        return Finished(card, out)
    if section.forgetting is not None:
        line.tasks.warm_up(section.forgetting)  # its imports pass while the engine starts
    endpoint = _start(line, release, merged)
    with line.display.stage(f"judge {release.id}") as shown:
        card = score_endpoint(
            endpoint,
            suite,
            section,
            model_digest=release.model_digest,
            subject=release.id,
            out=out,
            report=shown.report,
            tasks=line.tasks.run,
        )
        shown.note = _in_words(card)
    return Finished(card, out)


def gate(
    line: Line,
    release: Release,
    candidate: Finished[Scorecard],
    champion: Finished[Scorecard] | None,
    merged: Finished[MergedModel],
    dataset: Finished[DatasetManifest],
) -> Judged:
    """Decide, write the report, and move the release on: to `awaiting_approval` after a PASS, to `rejected` after anything else.

    A release that waits on another verdict than this one is rejected, and its model becomes a new release.
    """
    against = champion.record if champion else None
    verdict = decide(candidate.record, against, line.recipe.gate)
    folder = line.folder(
        "verdict", {"candidate": verdict.candidate_digest, "champion": verdict.champion_digest, "policy": verdict.policy_digest}
    )
    report = folder / REPORT_NAME
    folder.mkdir(parents=True, exist_ok=True)
    write_report(report, candidate.record, against, verdict, merged=merged.record, dataset=dataset.record)
    verdict.write(folder)
    if release.state in _WAITING and release.evidence_digest != evidence_digest(release.model_digest, verdict):
        # An approval of the older verdict would promote what this one may refuse.
        line.registry.reject(release.id, line.requester, f"judged again on other terms: {verdict.outcome}")
        line.registry.release_slot(release.id)
        release = register(line, merged)
    if release.state is State.CANDIDATE:
        release = _move_on(line, release, verdict, report)
    return Judged(release, verdict, folder, candidate.record, against)


def evidence_digest(model_digest: str, verdict: Verdict) -> str:
    """What an approver signs: this model, and this verdict with the digests of both scorecards in it."""
    return digest_of({"model": model_digest, "verdict": verdict.digest})


def _start(line: Line, release: Release, merged: Finished[MergedModel] | None) -> Endpoint:
    """Start the slot; meanwhile import, and render what the trainer would ask; compare when the server is there."""
    with ThreadPoolExecutor(max_workers=2) as beside:
        beside.submit(load_reference_tools, load_suites(line.recipe.evaluation.suites).language)
        rendering = beside.submit(_render, line, merged) if merged else None
        with line.display.stage(f"start {release.id}") as shown:
            endpoint = start_slot(line.registry, line.settings, release, CANDIDATE_LEASE_S, shown.report)
        if rendering is None:
            return endpoint
        with line.display.stage(f"parity {release.id}") as shown:
            renders = rendering.result()
            try:
                shown.note = in_words(compare(endpoint, line.recipe, renders, release.id))
            except ParityBroken as error:
                line.registry.release_slot(release.id)
                line.registry.reject(release.id, line.requester, error.what)
                raise
    return endpoint


def _render(line: Line, merged: Finished[MergedModel]) -> Renders:
    suite = load_suites(line.recipe.evaluation.suites)
    out = line.folder("render", {"model": merged.record.digest, "suite": suite.digest})
    if not (out / RECORD_NAME).exists():
        line.run(line.request("render", out, merged=merged.folder), silent)
    return Renders.read(out)


def _move_on(line: Line, release: Release, verdict: Verdict, report: Path) -> Release:
    if verdict.promotes and line.recipe.purpose == "production":
        return line.registry.submit(release.id, evidence_digest(release.model_digest, verdict), report, line.requester)
    broken = [condition.name for condition in verdict.conditions if condition.outcome is not verdict.outcome.PASS]
    reason = f"gate: {verdict.outcome} ({', '.join(broken)})" if broken else "an experiment is never promoted"
    line.registry.release_slot(release.id)
    return line.registry.reject(release.id, line.requester, reason)


def _in_words(card: Scorecard) -> str:
    def number(name: str, form: str) -> str:
        value = card.metrics.get(name)  # type: ignore[call-overload]
        return "–" if value is None else format(value, form)

    return (
        f"rules {number('rule_pass_rate', '.0%')}, critical {number('critical_failures', '.0f')}, BLEU-4 {number('bleu_4', '.1f')}, "
        f"ROUGE-L {number('rouge_l', '.3f')}, perplexity {number('perplexity', '.2f')}, "
        f"general ability {number('forgetting_accuracy', '.0%')}, p95 {number('latency_p95_s', '.2f')} s"
    )
