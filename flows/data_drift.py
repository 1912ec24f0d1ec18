"""Is the data still like that of the model in production? The champion's profile is kept by its model, and a new dataset held against it.

Next: `training/data/drift.py`, which measures.
"""

from pathlib import Path

from flows.display import plain
from flows.stages import Finished, Line
from serving.records import Release
from training.data.drift import Drift, compare
from training.data.profile import read_profile, write_profile
from training.data.report import REPORT_PAGE, DataReport, write_report
from training.records import DatasetManifest

_KEY_DIGITS = 12


def remember_data(line: Line, release: Release, dataset: Finished[DatasetManifest]) -> None:
    """Keep the profile of the data that a release was trained on, for the day when it is the champion."""
    profile = read_profile(dataset.folder)
    if profile is not None:
        folder = _folder(line, release)
        folder.mkdir(parents=True, exist_ok=True)
        write_profile(folder, profile)


def look_for_drift(line: Line, dataset: Finished[DatasetManifest]) -> Drift | None:
    """Compare a dataset with the champion's; None where there is nothing to compare with.

    Raises:
        DataError: it has moved further than the recipe allows.
    """
    section, champion = line.recipe.data.drift, line.registry.champion(line.recipe.serving.public_name)
    new, old = read_profile(dataset.folder), read_profile(_folder(line, champion)) if champion else None
    if section.policy == "off" or new is None or old is None:
        return None
    drift = compare(new, old, section)
    page = dataset.folder.with_name(f"{dataset.folder.name}.{REPORT_PAGE}")
    write_report(page, DataReport(f"{line.recipe.name}, compared with {champion.id if champion else ''}", new, drift))
    _show(line, drift, page)
    drift.require_none()
    return drift


def _folder(line: Line, release: Release) -> Path:
    return line.settings.home / "profiles" / release.model_digest[:_KEY_DIGITS]


def _show(line: Line, drift: Drift, page: Path) -> None:
    moved = [finding for finding in drift.findings if finding.level in ("warn", "stop")]
    for finding in moved:
        line.display.say(f"  [yellow]![/] {plain(finding.what)}")
    if moved:
        line.display.say(f"  the data has moved: {plain(str(page))}")
