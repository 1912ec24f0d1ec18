from importlib.metadata import version

import torch

from training.practice.seeds import be_deterministic, conditions


def test_what_the_bits_of_a_run_depend_on_is_recorded() -> None:
    found = conditions(11)

    assert (found.seed, found.threads) == (11, torch.get_num_threads())
    assert found.versions["torch"] == version("torch")
    assert found.repeatable is (not torch.cuda.is_available())


def test_algorithms_that_repeat_are_taken_when_asked_for_and_let_go_of_afterwards() -> None:
    be_deterministic(True)
    assert torch.are_deterministic_algorithms_enabled()
    be_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
