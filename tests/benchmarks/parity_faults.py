"""Plants every fault that parity must catch and prints what it saw of each; then how far honest servers are from the trainer.

    python -m tests.benchmarks.parity_faults [honest careless]
    python -m tests.benchmarks.parity_faults MERGED BASE [SERVED…]

First a tiny model, made on the spot, and served in two ways, or the one that is named. With the folders of a merged model and its
base, those are served in each number type, and the base in the merged model's place: the figures behind the tolerances in
`parity_figures.py`. SERVED picks some of bfloat16, float16, float32, base.
"""

import sys
import tempfile
import time
from pathlib import Path

from evaluation.parity_records import Dtype, ParityReport, TrainerView
from evaluation.suite import Suite, load_suite
from tests.fakes_parity import PLANTED, Bench, compared, real_server, view_of

SUITE = Path(__file__).resolve().parents[2] / "flows" / "recipes" / "clinic_en" / "suite"
_WAYS = ("honest", "careless")
_DTYPES: tuple[Dtype, ...] = ("bfloat16", "float16", "float32")


def main(arguments: list[str]) -> None:
    """Print one of the two tables."""
    with tempfile.TemporaryDirectory() as folder:
        if set(arguments) - set(_WAYS):
            print_spread(Path(arguments[0]), Path(arguments[1]), arguments[2:] or [*_DTYPES, "base"], Path(folder))
        else:
            bench, reports = Bench(Path(folder)), dict[str, ParityReport]()
            for way in arguments or _WAYS:
                reports |= getattr(bench, way)()
            print_faults(reports)


def print_faults(reports: dict[str, ParityReport]) -> None:
    """Fault, what it should be reported as, and what was reported."""
    print(f"{'planted fault':<46} {'expected':<28} seen")
    for planted in (each for each in PLANTED if each.seen_in in reports):
        seen = [fault for fault in reports[planted.seen_in].faults if fault.kind is planted.expected]
        what = f"{len(seen)}, first: {seen[0].subject}: {seen[0].what}" if seen else "NOT CAUGHT"
        print(f"{planted.name:<46} {planted.expected:<28} {what[:150]}")
    if honest := reports.get("honest"):
        print(f"{'none: the honest server':<46} {'nothing':<28} {len(honest.faults)} faults in {honest.compared} conversations")
    for place, report in reports.items():
        if report.figures:
            print_figures(place, report)


def print_spread(merged: Path, base: Path, served: list[str], root: Path) -> None:
    """Figures of a real model, served in each number type and swapped for its base."""
    suite = load_suite(SUITE)
    began = time.perf_counter()
    trained = view_of(merged, base, suite, root / "view")
    print(f"trainer's view: {time.perf_counter() - began:.1f} s")
    for dtype in (each for each in _DTYPES if each in served):
        print_figures(f"merged, {dtype}", _served(merged, root / dtype, suite, trained, dtype))
    if "base" in served:
        print_figures("base, bfloat16", _served(base, root / "base", suite, trained, "bfloat16"))


def print_figures(name: str, report: ParityReport) -> None:
    """One line of the spread."""
    figures = report.figures
    assert figures is not None
    print(
        f"{name:<18} {figures.tokens} tokens: mean {figures.mean:.5f} ({figures.mean / figures.own_mean:.4f} of own), "
        f"median {figures.median:.5f}, p99 {figures.p99:.4f}, max {figures.max:.4f} ({figures.max / figures.own_max:.3f} of own); "
        f"greedy {figures.greedy_agreed}/{figures.greedy_tokens}; seen as {figures.dtype_seen}; {report.likely or 'holds'}",
        flush=True,
    )


def _served(model: Path, slot: Path, suite: Suite, trained: TrainerView, dtype: Dtype) -> ParityReport:
    began = time.perf_counter()
    with real_server(model, slot, dtype=dtype) as endpoint:
        ready = time.perf_counter()
        report = compared(endpoint, suite, trained, model, dtype=dtype)
        print(f"start {ready - began:.1f} s, compare {time.perf_counter() - ready:.1f} s")
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
