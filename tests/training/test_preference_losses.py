"""Our reference-free losses are TRL's, number by number, on random log-probabilities."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from training.preference_losses import Scored, cpo, odds_ratio, reference_free_loss, simpo
from training.preference_section import PreferenceSection

TOKENS = torch.tensor([3.0, 8.0, 1.0, 20.0, 5.0])


def scored() -> Scored:
    generator = torch.Generator().manual_seed(3)
    sums = -TOKENS * torch.rand(2, 5, generator=generator) * 3
    return Scored(sums[0], sums[1], TOKENS, TOKENS.flip(0))


def of_trl(loss: str, beta: float, smoothing: float, chosen: torch.Tensor, rejected: torch.Tensor) -> Any:
    settings = {"loss_type": loss, "beta": beta, "label_smoothing": smoothing, "simpo_gamma": 1.4, "alpha": 0.0}
    trainer = SimpleNamespace(**settings, accelerator=SimpleNamespace(device="cpu"))
    return CPOTrainer.cpo_loss(trainer, chosen, rejected)[0]


@pytest.mark.parametrize(("loss", "smoothing"), [("sigmoid", 0.0), ("sigmoid", 0.2), ("hinge", 0.0), ("ipo", 0.0)])
def test_cpo_is_trls(loss: str, smoothing: float) -> None:
    values = {"method": "cpo", "loss": loss, "beta": 0.3} | ({"label_smoothing": smoothing} if smoothing else {})
    ours = cpo(scored(), PreferenceSection.model_validate(values))

    given = scored().means if loss == "ipo" else (scored().chosen, scored().rejected)
    torch.testing.assert_close(ours, of_trl(loss, 0.3, smoothing, *given))


def test_simpo_is_trls() -> None:
    torch.testing.assert_close(simpo(scored(), 2.5, 1.4), of_trl("simpo", 2.5, 0.0, *scored().means))


def test_the_odds_ratio_is_trls_with_the_sign_of_a_loss() -> None:
    trainer = SimpleNamespace(beta=0.2, accelerator=SimpleNamespace(device="cpu"))
    theirs = ORPOTrainer.odds_ratio_loss(trainer, *scored().means)[0]

    torch.testing.assert_close(odds_ratio(scored(), 0.2), -theirs)


def test_an_answer_that_is_certain_has_no_infinite_odds() -> None:
    certain = Scored(torch.zeros(1, requires_grad=True), torch.full((1,), -9.0), torch.ones(1), torch.ones(1))

    loss = odds_ratio(certain, 0.2).sum()
    loss.backward()

    assert torch.isfinite(loss)
    assert certain.chosen.grad is not None
    assert torch.isfinite(certain.chosen.grad).all()


def test_the_cross_entropy_is_the_mean_over_all_tokens_of_the_chosen_answers() -> None:
    given = scored()
    tokens = given.chosen_tokens.sum()
    with_it, without = (
        reference_free_loss(given, PreferenceSection.model_validate({"method": "orpo", "sft_weight": weight}), given.pairs, tokens)
        for weight in (1.0, 0.0)
    )

    torch.testing.assert_close(with_it - without, -given.chosen.sum() / 37)
