"""Shows a stage's report on its run in Prefect, as a Markdown artifact. The reports themselves lie on disk, whatever Prefect has.

Next: `pipeline.py`, which wraps stages in it.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectException

from evaluation.records import Scorecard
from flows.display import Display
from flows.judging import REPORT_MARKDOWN, REPORT_NAME, Judged
from flows.stages import Finished, Line
from serving.lifecycle import State
from serving.settings import load_settings
from training.data.profile import read_profile
from training.data.report import DataReport
from training.data.report_markdown import markdown_report
from training.records import DatasetManifest

P = ParamSpec("P")
R = TypeVar("R")


def published(stage: Callable[P, R], key: str, markdown: Callable[[R], str | None]) -> Callable[P, R]:
    """`stage`, whose report becomes the artifact `key` of its run; that Prefect cannot take it fails no stage."""

    @wraps(stage)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        made = stage(*args, **kwargs)
        if text := markdown(made):
            line = next(each for each in args if isinstance(each, Line))
            show(text, key, line.recipe.name, line.display)
        return made

    return run


def show(text: str, key: str, description: str, display: Display) -> None:
    """Put `text` on the run, where there is one."""
    try:
        create_markdown_artifact(text, key=key, description=description)
    except (PrefectException, httpx.HTTPError) as error:
        display.say(f"  [yellow]![/] {key} is not shown in Prefect: {type(error).__name__}")


def of_verdict(judged: Judged) -> str:
    """The verdict's report, where the whole of it lies, and how a person decides."""
    release, report = judged.release, judged.verdict_folder / REPORT_NAME
    text = (judged.verdict_folder / REPORT_MARKDOWN).read_text(encoding="utf-8")
    links = [f"- every answer, side by side: [{report}]({report.as_uri()}), on the worker's disk"]
    if release.state is State.AWAITING_APPROVAL:
        digest = (release.evidence_digest or "")[:12]
        links += [
            f"- approve: `tunegate approve {release.id} --as NAME --digest {digest}`",
            f"- reject: `tunegate reject {release.id} --as NAME`",
        ]
    if grafana := load_settings().grafana_url.rstrip("/"):
        links.append(f"- dashboards: [training]({grafana}/d/tunegate-training), [rollout]({grafana}/d/tunegate-rollout)")
    return "\n".join([text.rstrip(), "", "## Where to go from here", "", *links, ""])


def of_scorecard(scored: Finished[Scorecard]) -> str:
    """Every number of a scorecard that was measured."""
    card = scored.record
    rows = [f"| {name} | {value:.4g} |" for name, value in sorted(card.metrics.items()) if value is not None]
    return "\n".join([f"# {card.subject} on {card.suite_name}", "", "| metric | value |", "| --- | --- |", *rows])


def of_data(dataset: Finished[DatasetManifest]) -> str | None:
    """The data report; None for a dataset without a profile."""
    profile = read_profile(dataset.folder)
    return markdown_report(DataReport(dataset.folder.parent.name, profile)) if profile else None
