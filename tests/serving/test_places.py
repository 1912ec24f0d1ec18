"""Which engines run where not all of them can: the decision as a table, and the amounts it is made from."""

import json
import os
from collections.abc import Collection
from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.config import ServingSection
from serving.lifecycle import State
from serving.memory import GpuMemory, MachineMemory
from serving.places import Tenancy, places
from serving.records import Release
from serving.rollout_section import RolloutSection, RolloutStep
from tests.fakes_serving import bare_release


class Fixed:
    """Every engine takes 4, and there are `whole` in all."""

    def __init__(self, whole: float) -> None:
        self.whole = whole

    def needs(self, release: Release) -> float:
        return 4.0

    def room(self, engines: Collection[int]) -> float:
        return self.whole

    def words(self, amount: float) -> str:
        return f"{amount:g}"


def release(number: int, state: State, change: str = "auto", name: str = "clinic", engine: str = "vllm") -> Release:
    return bare_release(number, state, name=name, change=change, engine=engine)


LIVE, OLD, CANARY = release(1, State.LIVE), release(2, State.RETIRED), release(3, State.CANARY)
CANDIDATE, APPROVED = release(4, State.CANDIDATE), release(5, State.APPROVED)
ALONE_LIVE, ALONE_OLD = release(1, State.LIVE, "recreate"), release(2, State.RETIRED, "recreate")
ALONE_CANDIDATE, ALONE_APPROVED = release(4, State.CANDIDATE, "recreate"), release(5, State.APPROVED, "recreate")
OTHER, ELSEWHERE = release(1, State.LIVE, name="other"), release(6, State.CANDIDATE, engine="outside")


@pytest.mark.parametrize(
    ("whole", "wanted", "run"),
    [
        (12, [LIVE, CANDIDATE, OLD], ["clinic-1", "clinic-4", "clinic-2"]),
        (8, [LIVE, CANDIDATE, OLD], ["clinic-1", "clinic-4"]),
        (8, [OLD, LIVE, CANARY], ["clinic-1", "clinic-3"]),
        (7, [LIVE, APPROVED], ["clinic-1"]),
        (7, [APPROVED, LIVE, OTHER], ["clinic-1"]),
        (8, [LIVE, OTHER, CANDIDATE], ["clinic-1", "other-1"]),
        (1, [LIVE], ["clinic-1"]),
        (4, [LIVE, ELSEWHERE], ["clinic-1", "clinic-6"]),
        (4, [LIVE, release(4, State.CANDIDATE, "side_by_side")], ["clinic-1", "clinic-4"]),
        (99, [ALONE_LIVE, ALONE_OLD], ["clinic-1"]),
        (99, [ALONE_LIVE, ALONE_APPROVED], ["clinic-1"]),
        (99, [ALONE_LIVE, ALONE_CANDIDATE], ["clinic-4"]),
        (99, [LIVE, ALONE_CANDIDATE, OTHER], ["clinic-4", "other-1"]),
    ],
)
def test_places_go_to_those_who_answer_callers_first(whole: float, wanted: list[Release], run: list[str]) -> None:
    given = places(wanted, Fixed(whole), Tenancy())
    assert [each.id for each in given.run] == run
    assert given.waiting.keys() == {each.id for each in wanted} - set(run)


def test_whom_a_rollout_may_go_back_to_is_not_displaced_by_a_candidate() -> None:
    assert [each.id for each in places([LIVE, CANDIDATE, OLD], Fixed(8), Tenancy(kept=["clinic-2"])).run] == ["clinic-1", "clinic-2"]


def test_an_engine_that_is_being_stopped_keeps_its_place_until_it_is_gone() -> None:
    given = places([LIVE], Fixed(7), Tenancy(leaving=[OLD]))
    assert (given.run, given.waiting) == ([], {"clinic-1": "no memory for it beside clinic-2: it needs 4, 3 are free"})


def test_the_reason_is_said_with_the_amounts_or_with_the_recipes_key() -> None:
    assert places([LIVE, CANDIDATE], Fixed(7), Tenancy()).waiting == {
        "clinic-4": "no memory for it beside clinic-1: it needs 4, 3 are free"
    }
    (reason,) = places([ALONE_LIVE, ALONE_OLD], Fixed(99), Tenancy()).waiting.values()
    assert reason == "the recipe says `serving.change: recreate`: it runs when clinic-1 has stopped"


@pytest.mark.parametrize(("dtype", "factor"), [("bfloat16", 1), ("float32", 2)])
def test_an_engine_needs_its_weights_as_they_are_served_a_cache_and_the_program(tmp_path: Path, dtype: str, factor: int) -> None:
    """The cache of a small model is 1 GiB whole, the program 1.2 GiB."""
    (tmp_path / "model.safetensors").write_bytes(b"0" * 1000)
    sizes = {"num_attention_heads": 8, "hidden_size": 512, "num_hidden_layers": 4}
    (tmp_path / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
    section = ServingSection.model_validate({"public_name": "clinic", "dtype": dtype})
    needs = MachineMemory().needs(LIVE.model_copy(update={"model_dir": tmp_path, "serving": section}))
    assert needs == 1000 * factor + (1 << 30) + int(1.2 * (1 << 30))


def test_what_running_engines_have_taken_counts_as_room_for_engines() -> None:
    """This process has more than 50 MB, and the free memory moves by less between two looks."""
    memory = MachineMemory()
    assert memory.room([os.getpid()]) - memory.room([]) > 25e6


def test_on_a_gpu_the_shares_of_the_recipes_decide() -> None:
    assert [each.id for each in places([LIVE, CANDIDATE, OLD], GpuMemory(), Tenancy()).run] == ["clinic-1", "clinic-4"]


def test_one_engine_at_a_time_and_a_canary_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match=r"remove the steps"):
        ServingSection(public_name="clinic", change="recreate", rollout=RolloutSection(steps=(RolloutStep(percent=5),)))
