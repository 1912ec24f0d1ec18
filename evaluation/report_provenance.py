"""What a verdict rests on: the evidence of one judgement, and the chain of digests that leads to it. Pure. Next: `report.py`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from evaluation.config import GateSection
from evaluation.parity_records import ParityReport
from evaluation.records import Scorecard, Verdict
from evaluation.report_text import counted, moment
from training.records import DatasetManifest, MergedModel


@dataclass(frozen=True)
class Evidence:
    """Everything the report shows. `champion` is None for a first release; what is None or empty is left out of the page."""

    candidate: Scorecard
    champion: Scorecard | None
    verdict: Verdict
    policy: GateSection
    merged: MergedModel | None = None
    dataset: DatasetManifest | None = None
    parity: ParityReport | None = None
    recipe_name: str = ""
    recipe_digest: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One record of the chain; `digests` are (what it is, hex sha256)."""

    name: str
    what: str
    digests: tuple[tuple[str, str], ...]


def chain(evidence: Evidence) -> list[Step]:
    """From the recipe to the verdict, in the order in which things were made."""
    return list(_steps(evidence))


def _steps(evidence: Evidence) -> Iterator[Step]:
    candidate, champion, verdict = evidence.candidate, evidence.champion, evidence.verdict
    if evidence.recipe_digest:
        yield Step("Recipe", evidence.recipe_name, (("recipe", evidence.recipe_digest),))
    if dataset := evidence.dataset:
        yield Step("Dataset", _rows(dataset), (("dataset", dataset.digest), ("base model", dataset.base_digest)))
    if merged := evidence.merged:
        said = "; ".join(("trained on that dataset", *merged.warnings))
        yield Step("Adapter", said, (("adapter", merged.adapter_digest),))
        size = sum(file.size_bytes for file in merged.files) / 1e9
        kept = f"{merged.certificate.chosen} kept, {counted(len(merged.files), 'file')}, {size:.2f} GB"
        yield Step("Merged model", kept, (("model", merged.digest),))
    if evidence.parity:
        yield Step("Parity", "the live server against the trainer", (("parity", evidence.parity.digest),))
    yield Step("Suite", f"{candidate.suite_name} v{candidate.suite_version}", (("suite", verdict.suite_digest),))
    yield _card("Candidate's scorecard", candidate, verdict.candidate_digest)
    if champion:
        yield _card("Champion's scorecard", champion, verdict.champion_digest or "")
    yield Step("Verdict", verdict.outcome.value, (("verdict", verdict.digest), ("policy", verdict.policy_digest)))


def _card(name: str, card: Scorecard, digest: str) -> Step:
    return Step(name, f"{card.subject}, measured {moment(card.created_at)}", (("scorecard", digest), ("model", card.model_digest)))


def _rows(dataset: DatasetManifest) -> str:
    rows_in = sum(source.rows_in for source in dataset.sources)
    parts = [
        f"{rows_in:,} rows in from {counted(len(dataset.sources), 'source')}",
        f"{dataset.train_rows:,} to train",
        f"{dataset.validation_rows:,} to validate",
    ]
    if dataset.preference_rows:
        parts.append(f"{dataset.preference_rows:,} preference pairs")
    return ", ".join([*parts, f"{dataset.train_tokens:,} tokens, {dataset.loss_tokens:,} of them bear loss"])
