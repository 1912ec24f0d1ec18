"""The product in one page: what happens between a recipe and a better model in production.

    retrain: prepare → sft → (preference) → (reward → online) → merge → start → evaluate candidate and champion → compare → gate
             → await approval
    promote: check the evidence again → slot up → canary by steps, or all at once → the gateway follows the registry

Nothing waits between the two: an approval is a record, and no process and no GPU is held for the person who gives it.
Prefect shows, schedules and logs the tasks; the records on disk say what is finished. Next: `stages.py`, `judging.py`, `promotion.py`;
`operations.py`, the flows around these two.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from prefect import Task, flow

from flows import comparing, data_drift, judging, promotion, stages
from flows.artifacts import of_data, of_scorecard, of_verdict, published
from flows.judging import Judged
from flows.prefect_events import tell_prefect
from flows.progress_artifacts import shown_in_prefect
from flows.promotion import open_switchboard
from flows.retrying import patient
from flows.stages import Finished, open_line
from flows.timing import counted
from serving.lifecycle import State
from serving.records import Release
from training.records import AdapterArtifact

P = ParamSpec("P")
R = TypeVar("R")


def _stage(work: Callable[P, R]) -> Task[P, R]:
    return patient(counted(work))


reach_registry = _stage(stages.reach_registry)
fetch_base = _stage(stages.fetch_base)
prepare = _stage(published(stages.prepare, "data-report", of_data))
look_for_drift = _stage(data_drift.look_for_drift)
sft = _stage(stages.sft)
prefer = _stage(stages.prefer)
teach_reward = _stage(stages.teach_reward)
reinforce = _stage(stages.reinforce)
merge = _stage(stages.merge)
keep_champion_serving = _stage(judging.keep_champion_serving)
register = _stage(judging.register)
remember_data = _stage(data_drift.remember_data)
evaluate = _stage(published(judging.evaluate, "scorecard", of_scorecard))
evaluate_champion = _stage(published(judging.evaluate, "scorecard-champion", of_scorecard))
compare = _stage(comparing.compare)
gate = _stage(published(judging.gate, "verdict", of_verdict))
switch = _stage(promotion.switch)


@flow(name="retrain", persist_result=False)
def retrain(recipe: Path, requester: str) -> Judged | Finished[AdapterArtifact]:
    """Make a candidate from a recipe and judge it against the champion; ends with a release that awaits approval, or is rejected.

    Args:
        recipe: recipe file on the worker's disk
        requester: who asks for it; kept with the release
    """
    reach_registry()
    with open_line(recipe, requester) as opened:
        line = shown_in_prefect(opened)
        base = fetch_base(line)
        champion = keep_champion_serving(line, base)
        dataset = prepare(line, base)
        look_for_drift(line, dataset)
        adapter = sft(line, base, dataset)
        if line.recipe.preference is not None:
            adapter = prefer(line, base, dataset, adapter)
        reward = teach_reward(line, base, dataset, adapter) if line.recipe.reward is not None else None
        if line.recipe.online is not None:
            adapter = reinforce(line, base, adapter, reward)
        if not line.recipe.sft.tuning.mergeable:
            return adapter  # an experiment whose outcome is no set of weights: there is nothing to serve
        merged = merge(line, base, dataset, adapter)
        release = register(line, merged)
        remember_data(line, release, dataset)
        candidate_card = evaluate(line, release, merged)
        champion_card = evaluate_champion(line, champion) if champion.id != release.id else None
        together = compare(line, release, champion, candidate_card, champion_card)
        return gate(line, release, (candidate_card, champion_card, together), merged, dataset)


@flow(name="promote", persist_result=False)
def promote(release_id: str, actor: str) -> Release:
    """Give an approved release the traffic of its public name; the champion before it stays warm for a rollback.

    Args:
        release_id: an approved release, e.g. clinic-2
        actor: who asks for it; kept in the release's history
    """
    reach_registry()
    with open_switchboard() as board:
        release = board.registry.release(release_id)
        if release.state is State.LIVE:
            return release  # an event may be told twice
        live = switch(board, release, actor)
        tell_prefect(board.registry)
    return live
