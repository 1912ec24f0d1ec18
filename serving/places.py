"""Which of the wanted engines run at the same time, where not all of them can. Pure.

`side_by_side` never asks; `recreate` never runs beside another engine of its public name; `auto` runs beside others while there is memory.
Whoever answers callers comes first. Only a recipe that says `recreate` lets a candidate, while it is judged, take the champion's place.
Next: `supervisor.py`, which starts and stops accordingly; `memory.py`, the amounts.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from serving.lifecycle import State
from serving.memory import Memory
from serving.records import Release

_RANK = {State.LIVE: 1, State.CANARY: 2, State.APPROVED: 3, State.AWAITING_APPROVAL: 4, State.CANDIDATE: 5, State.RETIRED: 6}
_JUDGED_FIRST = 0


@dataclass
class Places:
    """Releases that have a place, and for each of the others why it has none."""

    run: list[Release] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)

    def __contains__(self, release_id: str) -> bool:
        return any(release.id == release_id for release in self.run)


@dataclass(frozen=True)
class Tenancy:
    """How things are: the processes of the engines that run, and what may not be displaced or does not count as free yet.

    `kept` are releases that a rollout may go back to; `leaving` are engines that are being stopped, and keep their places until then.
    """

    pids: Collection[int] = ()
    kept: Collection[str] = ()
    leaving: Sequence[Release] = ()


def places(wanted: Collection[Release], memory: Memory, now: Tenancy) -> Places:
    """Give places in order of importance."""
    free, given, leaving = memory.room(now.pids), Places(), now.leaving
    for release in leaving:
        free -= memory.needs(release)
        given.run.append(release)
    alone = {release.public_name for release in (*leaving, *wanted) if release.serving.change == "recreate"}
    order = sorted(wanted, key=lambda release: (_rank(release, alone, now.kept), release.id))
    for release in order:
        needs = 0.0 if release.serving.engine == "outside" else memory.needs(release)
        reason = _against(release, needs, free, given, memory, alone)
        if reason:
            given.waiting[release.id] = reason
        else:
            given.run.append(release)
            free -= needs
    del given.run[: len(leaving)]
    return given


def _rank(release: Release, alone: set[str], kept: Collection[str]) -> int:
    if release.state is State.CANDIDATE and release.public_name in alone:
        return _JUDGED_FIRST
    return _RANK[State.CANARY] if release.id in kept else _RANK.get(release.state, len(_RANK) + 1)


def _against(release: Release, needs: float, free: float, given: Places, memory: Memory, alone: set[str]) -> str:
    """What speaks against a place; empty if nothing does."""
    others = ", ".join(each.id for each in given.run)
    if release.public_name in alone and (same := [each.id for each in given.run if each.public_name == release.public_name]):
        return f"the recipe says `serving.change: recreate`: it runs when {same[0]} has stopped"
    # Were the first one refused, nobody would answer at all; if it does not fit, the engine itself will say so.
    if release.serving.change == "side_by_side" or not given.run or not needs or needs <= free:
        return ""
    return f"no memory for it beside {others}: it needs {memory.words(needs)}, {memory.words(free)} are free"
