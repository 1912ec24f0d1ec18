"""The data report: one self-contained HTML page that shows why a dataset can be defended, or what is wrong with it.

The page needs no network and follows the reader's light or dark setting. Every text from a row, a file name or a suite passes
through `visible` and then through Jinja's autoescaping, wherever the template prints it. No clock time is on the page, so the same data
gives the same bytes. Next: `report.html.j2`; `report_markdown.py` says the same for terminals.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from training.atomic import write_text
from training.data.drift import Drift
from training.data.profile import DataProfile
from training.data.reasons import REASONS, STAGES
from training.data.report_charts import funnel, length_chart, shares
from training.data.report_fixes import Verdict, to_fix, verdict_of
from training.data.report_text import counted, differences, percent, visible

REPORT = "report.html"

REPORT_PAGE = "data_report.html"  # beside the rows

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class DataReport:
    """Everything that is shown: `title` names the recipe or the paths; `drift` is None without a champion to compare with."""

    title: str
    profile: DataProfile
    drift: Drift | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether the data can be used, in a line."""
        return verdict_of(self.profile, self.drift)

    @property
    def fixes(self) -> list[str]:
        """What to do about the data, most rows first."""
        return to_fix(self.profile)


def write_report(path: Path, report: DataReport) -> None:
    """Write the page to `path`, in one step."""
    write_text(path, render_report(report))


def render_report(report: DataReport) -> str:
    """The page."""
    profile = report.profile
    reasons = [(REASONS[code], rows, profile.examples.get(code, ())) for code, rows in profile.dropped.items()]
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            report=report,
            profile=profile,
            funnel=funnel(profile),
            chart=length_chart(profile),
            languages=shares(profile.languages),
            topics=shares(profile.topics),
            reasons=sorted(reasons, key=lambda entry: (entry[0].quiet, STAGES.index(entry[0].stage), -entry[1])),
            samples=[(sample, *differences(sample.before, sample.after)) for sample in profile.samples],
            leaked_prompts=len({(leak.suite, leak.prompt_id) for leak in profile.leaks}),
            masked=shares(profile.masked),
            terms=shares(profile.terms),
            adverts=shares(profile.adverts),
            percent=percent,
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = _coded
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["rows"] = lambda number: counted(number, "row")
    environment.filters["place"] = lambda share: f"{share:.2f}"
    return environment


def _shown(value: Any) -> Any:
    """What the template prints: no text goes onto the page with characters that cannot be seen."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _coded(sentence: str) -> Markup:
    """A sentence with what stands between backticks as code; an odd backtick is only a character."""
    parts = visible(sentence).split("`")
    if len(parts) % 2 == 0:
        return escape("`".join(parts))
    return Markup("").join(Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts))
