"""From a merged model to a verdict: a release is registered, started, asked what the champion was asked, and compared.

What is judged here is the very server that will take the traffic. Next: `promotion.py`, for what follows a PASS.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from evaluation.aggregates import METRICS
from evaluation.client import Endpoint
from evaluation.gate import decide
from evaluation.lm_eval_tasks import forgetting_terms
from evaluation.parity import broken_bytes, identity_only
from evaluation.parity_records import ParityReport, TrainerView
from evaluation.records import Scorecard, Verdict
from evaluation.report import write_report
from evaluation.report_markdown import markdown_report
from evaluation.review_condition import waits_for_review
from evaluation.review_records import ReviewResult
from evaluation.review_votes import RESULT_FOLDER
from evaluation.scoring import load_reference_tools, score_endpoint
from evaluation.suite import load_suite
from evaluation.suite_union import load_suites
from flows.approval_section import risks
from flows.cases import Case, case_folder, evidence_of
from flows.comparing import Together
from flows.errors import ParityBroken
from flows.rendering import compare, in_words, keep_for_starts_of, require, weights_of
from flows.serving_control import ensure_server, start_slot
from flows.signatures import sign_if_asked
from flows.stages import Finished, Line, base_folder
from flows.timing import Timed, timed
from serving.approvals import Asked
from serving.artefact import verify_artefact
from serving.artefact_store import bring, store_of
from serving.lifecycle import State
from serving.line_log import Step
from serving.live_reference import LiveReference, write_reference
from serving.records import Release
from training.atomic import write_text
from training.data.read_secrets import masked
from training.errors import RecordError
from training.progress import silent
from training.records import RECORD_NAME, BaseModelRecord, DatasetManifest, MergedModel, digest_of

REPORT_NAME, REPORT_MARKDOWN = "report.html", "report.md"
REVIEWS = "reviews"
PARITY_FOLDER = "parity"  # beside a scorecard, and again beside the verdict that it is evidence for
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


# The candidate's scorecard, the champion's where there is one, and what was measured of the two together.
Measured = tuple[Finished[Scorecard], Finished[Scorecard] | None, Together]


def keep_champion_serving(line: Line, base: Finished[BaseModelRecord]) -> Release:
    """The release in production; the base model, where there is none yet. The server is started, and not waited for."""
    serving, registry = line.recipe.serving, line.registry
    champion = registry.champion(serving.public_name)
    if champion is None:
        sign_if_asked(line.settings, base.folder)
        _store(line, base.folder)
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
    """The merged model as a candidate, signed; the same model again is the same release while that is under way."""
    sign_if_asked(line.settings, merged.folder)
    _store(line, merged.folder)
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

    With `merged`, the server must first do all that the trainer computes from that model; without, its weights must be those of
    their record. Which of the two, and every figure, is in the parity report beside the scorecard.

    Raises:
        ParityBroken: it does not; the release is rejected.
    """
    suite, section = load_suites(line.recipe.evaluation.suites), line.recipe.evaluation
    settings = section.model_dump(mode="json", include={"concurrency", "perplexity", "repetitions", "judge"})
    tasks = forgetting_terms(section.forgetting)
    terms = settings | {"suite": suite.digest, "tasks": tasks, "serving": release.serving.model_dump(mode="json")}
    out = line.settings.home / "scorecards" / f"{release.model_digest[:12]}-{digest_of(terms)[:12]}"
    if (out / RECORD_NAME).exists() and _parity_is_known(out / PARITY_FOLDER, merged):
        card = Scorecard.read(out)
        line.display.reused(f"judge {release.id}", _in_words(card))
        _remember(line, release, card)
        return Finished(card, out)
    if section.forgetting is not None:
        line.tasks.warm_up(section.forgetting)  # its imports pass while the engine starts
    endpoint = _start(line, release, merged, out / PARITY_FOLDER)
    with line.display.stage(f"judge {release.id}") as shown, _timed(line, "judge"):
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
    if release.serving.change == "recreate" and release.state is State.CANDIDATE:
        line.registry.release_slot(release.id)  # the champion gets its place back, to be judged or to answer
    _remember(line, release, card)
    return Finished(card, out)


def gate(
    line: Line,
    release: Release,
    measured: Measured,
    merged: Finished[MergedModel],
    dataset: Finished[DatasetManifest],
) -> Judged:
    """Decide, write the report, and move the release on: to `awaiting_approval` after a PASS, to `rejected` after anything else.

    Where only a blind review is missing, it stays a candidate. A release that waits on another verdict than this one is rejected, and
    its model becomes a new release.

    Raises:
        ParityBroken: the candidate's parity report is not one of this model, or does not hold.
    """
    candidate, champion, together = measured
    parity = ParityReport.read(candidate.folder / PARITY_FOLDER)
    require(parity, release.model_digest)
    against = champion.record if champion else None
    review = _review(line, candidate.record, against)
    with _timed(line, "gate") as said:
        verdict = decide(
            candidate.record,
            against,
            line.recipe.gate,
            review,
            speed=together.speed.record if together.speed else None,
            preferences=together.preferences.record if together.preferences else None,
        )
        said.verdict = verdict.outcome
    inputs = {"candidate": verdict.candidate_digest, "champion": verdict.champion_digest, "policy": verdict.policy_digest}
    inputs |= {key: digest for key in ("speed_digest", "preferences_digest") if (digest := getattr(verdict, key))}
    folder = line.folder("verdict", inputs | ({"review": review.digest} if review else {}))
    report = folder / REPORT_NAME
    folder.mkdir(parents=True, exist_ok=True)
    evidence = evidence_of(line.recipe, candidate.record, against, verdict, merged.record, dataset.record, parity)
    write_report(report, evidence)
    write_text(folder / REPORT_MARKDOWN, markdown_report(evidence))
    parity.write(folder / PARITY_FOLDER)
    verdict.write(folder)
    if release.state in _WAITING and release.evidence_digest != evidence_digest(release.model_digest, verdict, parity):
        # An approval of the older verdict would promote what this one may refuse.
        line.registry.reject(release.id, line.requester, f"judged again on other terms: {verdict.outcome}")
        line.registry.release_slot(release.id)
        release = register(line, merged)
    if release.state is State.CANDIDATE:
        release = _move_on(line, release, verdict, parity, report, review, (candidate.record, against))
    case = Case(
        created_at=verdict.created_at,
        release=release.id,
        recipe=line.recipe,
        candidate=candidate.folder,
        champion=champion.folder if champion else None,
        speed=together.speed.folder if together.speed else None,
        preferences=together.preferences.folder if together.preferences else None,
        merged=merged.folder,
        dataset=dataset.folder,
    )
    case.write(case_folder(line.settings.home, release.id))
    return Judged(release, verdict, folder, candidate.record, against)


def review_folder(home: Path, candidate_digest: str, champion_digest: str) -> Path:
    """Where the blind review of two scorecards is kept."""
    return home / REVIEWS / f"{candidate_digest[:12]}-{champion_digest[:12]}"


def _store(line: Line, model: Path) -> None:
    """Bring a model to where other machines get it from, before any of them hears of it."""
    if (store := store_of(line.settings)) is not None:
        with line.display.stage("store") as shown:
            shown.note = f"{store.put(model) / 1e6:.0f} MB to {masked(store.address)}"


def evidence_digest(model_digest: str, verdict: Verdict, parity: ParityReport) -> str:
    """What an approver signs: this model, this verdict with the digests of both scorecards in it, and this parity report."""
    return digest_of({"model": model_digest, "verdict": verdict.digest, "parity": parity.digest})


def _parity_is_known(folder: Path, merged: Finished[MergedModel] | None) -> bool:
    if not (folder / RECORD_NAME).exists():
        return False
    report = ParityReport.read(folder)
    return report.holds and (report.against_trainer or merged is None)


def _start(line: Line, release: Release, merged: Finished[MergedModel] | None, out: Path) -> Endpoint:
    """Start the slot; meanwhile import, hash the weights and compute what the trainer would do; compare when the server is there."""
    with ThreadPoolExecutor(max_workers=3) as beside:
        beside.submit(load_reference_tools, load_suites(line.recipe.evaluation.suites).language)
        weights = beside.submit(_weights, line, release)
        trained = beside.submit(view_of_trainer, line, merged) if merged else None
        with line.display.stage(f"start {release.id}") as shown:
            endpoint = start_slot(line.registry, line.settings, release, CANDIDATE_LEASE_S, shown.report)
        if trained is None:
            _identity(weights.result()).write(out)
            return endpoint
        with line.display.stage(f"parity {release.id}") as shown, _timed(line, "parity"):
            identity = weights.result()
            report = identity if identity.faults else compare(endpoint, line.recipe, trained.result(), identity)
            report.write(out)
            shown.note = in_words(report)
            try:
                require(report, release.model_digest)
            except ParityBroken as error:
                line.registry.release_slot(release.id)
                line.registry.reject(release.id, line.requester, error.what)
                raise
            keep_for_starts_of(line.settings.live_folder, release.id, line.recipe, trained.result())
    return endpoint


def _timed(line: Line, step: Step) -> AbstractContextManager[Timed]:
    return timed(line.settings.home, line.recipe.serving.public_name, step)


def _remember(line: Line, release: Release, card: Scorecard) -> None:
    """What the server holds the release's live answers against."""
    suites = tuple(load_suite(folder) for folder in line.recipe.evaluation.suites)
    own = {prompt.id for prompt in suites[0].prompts}
    answers = tuple(answer.answer for answer in card.answers if answer.repetition == 0 and answer.prompt_id in own)
    write_reference(line.settings.live_folder, release.id, LiveReference(suites=suites, answers=answers))


def _weights(line: Line, release: Release) -> ParityReport:
    """Whether the release's files are, byte for byte, those of its record."""
    suite_digest = load_suites(line.recipe.evaluation.suites).digest
    try:
        bring(line.settings, release)
        weights = weights_of(verify_artefact(release))
    except RecordError as error:
        return broken_bytes(release.id, release.model_digest, suite_digest, error.what)
    return identity_only(release.id, release.model_digest, suite_digest, weights)


def _identity(report: ParityReport) -> ParityReport:
    # A model in production is not rejected for what somebody did to its folder: its server keeps the weights it has loaded.
    if report.faults:
        raise RecordError(report.faults[0].what, why="these are not the weights in production", do="restore the folder, or roll back")
    return report


def view_of_trainer(line: Line, merged: Finished[MergedModel]) -> TrainerView:
    """What training makes of the merged model, for parity; computed once for a model, a suite and a context length."""
    inputs = {
        "model": merged.record.digest,
        "suite": load_suites(line.recipe.evaluation.suites).digest,
        "context": line.recipe.serving.max_model_len,
    }
    out = line.folder("render", inputs)
    if not (out / RECORD_NAME).exists():
        with _timed(line, "render"):
            line.run(line.request("render", out, merged=merged.folder, base=base_folder(line)), silent)
    return TrainerView.read(out)


def _review(line: Line, candidate: Scorecard, champion: Scorecard | None) -> ReviewResult | None:
    """The closed review of these two, where the policy asks for one and there is one."""
    if champion is None or line.recipe.gate.human_review is None:
        return None
    folder = review_folder(line.settings.home, candidate.digest, champion.digest) / RESULT_FOLDER
    return ReviewResult.read(folder) if (folder / RECORD_NAME).exists() else None


def _submit(line: Line, release: Release, evidence: str, report: Path, cards: tuple[Scorecard, Scorecard | None]) -> Release:
    """Ask for signatures; where every risk bound of the recipe is kept, for none."""
    approval, (candidate, champion) = line.recipe.approval, cards
    asked = Asked(approval.terms, line.recipe.digest, line.recipe_path)
    waiting = line.registry.submit(release.id, evidence, report, line.requester, asked)
    if approval.auto is None:
        return waiting
    better = {name: metric.higher_is_better for name, metric in METRICS.items()}
    found = risks(approval.auto, candidate.metrics, champion.metrics if champion else None, better)
    if found:
        line.display.say(f"  {release.id} is not approved by its recipe alone: {'; '.join(found)}")
        return waiting
    return line.registry.approvals.grant_by_policy(release.id, evidence, approval.auto.model_dump(mode="json"))


def _move_on(
    line: Line,
    release: Release,
    verdict: Verdict,
    parity: ParityReport,
    report: Path,
    review: ReviewResult | None,
    cards: tuple[Scorecard, Scorecard | None],
) -> Release:
    if verdict.promotes and line.recipe.purpose == "production":
        return _submit(line, release, evidence_digest(release.model_digest, verdict, parity), report, cards)
    if waits_for_review(verdict, review) and line.recipe.purpose == "production":
        line.registry.release_slot(release.id)
        line.display.say(f"  {release.id} waits for human review: tunegate review create {release.id} --reviewer NAME")
        return release
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
