"""Trains a recipe's adapter with the processes that a launcher started, on one machine or on several; `tunegate run` goes on from there.

    torchrun --nnodes 2 --nproc-per-node 8 … -m flows.train_ranks RECIPE

TUNEGATE_HOME lies on a disk that all machines share, under the same path. The first process prepares the data and orders the stages
that all of them do together; the others wait for orders. Next: `stages.py`, whose stages these are; `deploy/multinode/`, how to start it.
"""

import getpass
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from flows import stages
from flows.errors import FAILED
from flows.stage_process import SPREAD, StageRequest, run_stage
from flows.stages import open_line
from serving.settings import load_settings
from training.disk import disk_faults_told
from training.environment import die_with_parent
from training.errors import TunegateError
from training.progress import Report, silent
from training.ranks import agreed, join, leave

_NO_MORE = ""


def main(argv: list[str]) -> int:
    """Lead or follow; returns the exit status."""
    die_with_parent()
    try:
        with disk_faults_told(load_settings().home):
            if join().first:
                lead(Path(argv[1]))
            else:
                follow()
    except TunegateError as error:
        print(error, file=sys.stderr)
        return error.exit_code or FAILED
    leave()
    return 0


def lead(recipe: Path) -> None:
    """Run the line up to its adapter, and tell the others when it is their turn.

    Raises:
        TunegateError: a stage cannot be done; the launcher then ends the others.
    """
    with open_line(recipe, getpass.getuser()) as alone:
        line = replace(alone, run=partial(_run, alone.run))
        base = stages.fetch_base(line)
        dataset = stages.prepare(line, base)
        adapter = stages.sft(line, base, dataset)
        if line.recipe.preference is not None:
            stages.prefer(line, base, dataset, adapter)
    agreed(_NO_MORE)


def follow() -> None:
    """Do one's share of each stage that the first process orders."""
    while order := agreed(_NO_MORE):
        run_stage(StageRequest.model_validate_json(order), silent)


def _run(alone: Callable[[StageRequest, Report], None], request: StageRequest, report: Report) -> None:
    if request.stage not in SPREAD:
        return alone(request, report)
    request.out.mkdir(parents=True, exist_ok=True)
    agreed(request.model_dump_json())
    return run_stage(request, report)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
