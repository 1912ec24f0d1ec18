"""What each of several processes does of a step, by arithmetic alone."""

import pytest

from training.devices import Ranks, ranks_here, require_others, shared_out
from training.errors import InputError
from training.step_batches import StepBatches

LAUNCHED = {"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("rows_per_pass", "passes", "world", "share"),
    [(8, 1, 1, (8, 1)), (8, 1, 2, (4, 1)), (1, 32, 8, (1, 4)), (4, 2, 2, (4, 1)), (4, 3, 2, (3, 2)), (2, 3, 6, (1, 1)), (6, 2, 4, (3, 1))],
)
def test_a_step_has_the_recipes_rows_whatever_the_number_of_processes(
    rows_per_pass: int, passes: int, world: int, share: tuple[int, int]
) -> None:
    assert shared_out(rows_per_pass, passes, world) == share


def test_rows_that_cannot_be_shared_equally_are_refused() -> None:
    with pytest.raises(InputError, match=r"6 rows per step \(3 × 2\) cannot be shared equally by 4 processes"):
        shared_out(3, 2, 4)


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [({}, Ranks()), (LAUNCHED, Ranks(5, 16, 1, 4)), ({"RANK": "1", "WORLD_SIZE": "2"}, Ranks(1, 2, 0, 1)), ({"RANK": "3"}, Ranks())],
)
def test_ranks_are_what_the_launcher_says(environment: dict[str, str], ranks: Ranks) -> None:
    assert ranks_here(environment) == ranks


@pytest.mark.parametrize("wrong", [{"RANK": "16"}, {"WORLD_SIZE": "many"}, {"LOCAL_RANK": "4"}, {"LOCAL_WORLD_SIZE": "17"}])
def test_variables_that_contradict_each_other_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError, match="contradict each other"):
        ranks_here(LAUNCHED | wrong)


def test_weights_are_not_shared_out_by_a_training_that_was_started_as_one_process() -> None:
    require_others(Ranks(0, 2, 0, 2), shard=True)
    with pytest.raises(InputError, match=r"`devices.shard` .* started as one"):
        require_others(Ranks(), shard=True)


@pytest.mark.parametrize("rows", [1, 7, 8, 23, 40])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_row_is_read_once_and_all_processes_make_as_many_passes(rows: int, world: int) -> None:
    rows_per_pass, passes = shared_out(4, 2, world)
    lengths = [10 + number % 9 for number in range(rows)]
    spread = [StepBatches(lengths, rows_per_pass, passes, 7, Ranks(rank, world)) for rank in range(world)]
    read = [list(each) for each in spread]

    assert {len(each) for each in read} == {len(spread[0])}
    own = [number for each in read for batch in each for number in batch if number != rows]
    assert sorted(own) == list(range(rows))
    if world > 1:
        assert {len(batch) for each in read for batch in each} == {rows_per_pass}


@pytest.mark.parametrize("world", [2, 4])
def test_a_step_reads_the_same_rows_on_any_number_of_processes(world: int) -> None:
    """40 rows in steps of 8: each step's set of rows is that of one process, in both epochs, and the epochs differ."""
    lengths = [10 + number % 9 for number in range(40)]

    def steps(processes: int, epoch: int) -> list[set[int]]:
        rows_per_pass, passes = shared_out(4, 2, processes)
        found: list[set[int]] = [set() for _ in range(5)]
        for rank in range(processes):
            batches = StepBatches(lengths, rows_per_pass, passes, 7, Ranks(rank, processes))
            batches.set_epoch(epoch)
            for number, batch in enumerate(batches):
                found[number // passes] |= set(batch)
        return found

    assert steps(world, 0) == steps(1, 0)
    assert steps(world, 1) == steps(1, 1) != steps(1, 0)
