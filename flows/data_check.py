"""`tunegate data check`: what is in the files that people have, and what to mend, before there is a recipe.

Runs every step of data preparation with its defaults, counts personal data without touching it, and writes nothing but the report
and the rows that would be left out. Next: `training/data/gather.py`, which does the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.suite import load_suite
from flows.stage_process import suite_prompts
from training.data.accounting import REJECTED, Ledger
from training.data.config import DataSection
from training.data.crew import Stage
from training.data.drift import compare
from training.data.gather import gather
from training.data.profile import PROFILE, DataProfile, read_profile, write_profile
from training.data.profile_builder import ProfileBuilder
from training.data.refine import Measure, Refiner
from training.data.report import REPORT_PAGE, DataReport, write_report
from training.data.sources import SourceSection
from training.errors import DataError
from training.prepare import renderer, require_readable
from training.progress import Report
from training.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Checked:
    """What was found, and where the page and the rejected rows lie."""

    report: DataReport
    page: Path
    rejected: Path

    @property
    def profile(self) -> DataProfile:
        """The data in numbers."""
        return self.report.profile


def check_data(
    sources: Sequence[SourceSection],
    suites: Sequence[Path],
    base: Path | None,
    max_length: int | None,
    out: Path,
    report: Report,
    against: Path | None = None,
) -> Checked:
    """Read every row of the sources and say what is wrong with them.

    Args:
        suites: folders of evaluation suites that the rows must not overlap.
        base: folder of a base model, whose tokenizer counts the tokens; None counts characters only.
        max_length: tokens per row; needs a base model.
        out: folder for the report.
        against: folder of a dataset, or of an earlier check, that the rows are held against.

    Raises:
        DataError: a source cannot be read at all, or there is no base model, or no report of the earlier data.
    """
    before = _earlier(against) if against else None
    require_readable(sources)
    if base is not None and not base.is_dir():
        raise DataError(f"{base} is no folder of a base model", do="name the folder that holds its tokenizer, or leave `--base` out")
    if max_length is not None and base is None:
        raise DataError(
            "`--max-length` counts tokens", why="only a model's tokenizer can tell them", do="name the model's folder with `--base`"
        )
    data = DataSection(sft=tuple(sources))
    wanted: list[tuple[Stage, SourceSection]] = [("any", source) for source in sources]
    builder = ProfileBuilder()

    def make_measure() -> Measure:
        assert base is not None
        return renderer(load_tokenizer(base), None)

    prompts = suite_prompts([load_suite(suite) for suite in suites])
    _make_folder(out)
    with Ledger(out / REJECTED) as ledger:
        gathered = gather(data, wanted, prompts, max_length, make_measure if base else None, ledger, builder, out, report)
        tally = ledger.close()
    profile = builder.build(
        tally,
        Refiner(data, (), None, None).masked,
        tokenizer=base.name if base else "",
        max_length=max_length,
        privacy=data.privacy_mode,
        suites={prompt.suite for prompt in prompts},
        duplicates=gathered.duplicate_counts(data.duplicates),
        read=gathered.how_read(),
    )
    gathered.spool.close()
    write_profile(out, profile)
    drift = compare(profile, before, data.drift) if before else None
    shown = DataReport(", ".join(source.label for source in sources), profile, drift)
    write_report(out / REPORT_PAGE, shown)
    return Checked(shown, out / REPORT_PAGE, out / REJECTED)


def _earlier(folder: Path) -> DataProfile:
    profile = read_profile(folder)
    if profile is None:
        raise DataError(f"{folder} holds no {PROFILE}", do="name the folder of a prepared dataset, or of an earlier `tunegate data check`")
    return profile


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the report cannot be written to {out}: {error.strerror}", do="name a folder of your own with `--out`") from None
