"""DPO against its formula worked out by hand, and at the places where it could break."""

import math
from dataclasses import replace

import pytest
import torch

from hornbook.model.transformer import Transformer
from hornbook.objectives.answers import Answer, answer_batch, answer_tensors
from hornbook.objectives.log_probabilities import token_log_probabilities
from hornbook.objectives.preference import DirectPreference, PairBatch

ROW_TOKENS, PAD_ID = 12, 0


def make_pairs(answers: list[Answer], reference: Transformer) -> PairBatch:
    with torch.no_grad():
        log_probabilities = token_log_probabilities(reference, answer_batch(answers, ROW_TOKENS, PAD_ID))
    return PairBatch(**answer_tensors(answers, ROW_TOKENS, PAD_ID), reference_log_probabilities=log_probabilities)


def log_probability(model: Transformer, answer: Answer) -> torch.Tensor:
    """Of one answer by itself, without padding or packing: the plain reckoning."""
    ids = torch.tensor([*answer.prompt, *answer.ids])
    log_probabilities = model.logits(model(ids[None]))[0].log_softmax(-1)
    places = range(len(answer.prompt) - 1, len(ids) - 1)
    return torch.stack([log_probabilities[place, ids[place + 1]] for place in places]).sum()


def worked_out(
    model: Transformer, reference: Transformer, answers: list[Answer], beta: float, smoothing: float, normalised: bool
) -> torch.Tensor:
    losses = []
    for chosen, rejected in zip(answers[0::2], answers[1::2], strict=True):
        ratios = [log_probability(model, one) - log_probability(reference, one) for one in (chosen, rejected)]
        if normalised:
            ratios = [ratio / len(one.ids) for ratio, one in zip(ratios, (chosen, rejected), strict=True)]
        wins = 1 / (1 + torch.exp(-beta * (ratios[0] - ratios[1])))
        losses.append(-(1 - smoothing) * wins.log() - smoothing * (1 - wins).log())
    return torch.stack(losses).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("normalised", [False, True])
def test_loss_and_gradients_are_those_of_the_formula(
    model: Transformer, reference: Transformer, answers: list[Answer], smoothing: float, normalised: bool
) -> None:
    batch = make_pairs(answers, reference)
    objective = DirectPreference(0.3, smoothing, normalised)
    loss, _ = objective.loss_sum(model, batch)
    expected = worked_out(model, reference, answers, 0.3, smoothing, normalised)
    assert objective.count(batch).item() == 4
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    ours = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(ours, torch.autograd.grad(expected, list(model.parameters())), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_first_loss_is_the_logarithm_of_two(model: Transformer, answers: list[Answer], smoothing: float) -> None:
    loss, sums = DirectPreference(0.1, smoothing).loss_sum(model, make_pairs(answers, model))
    assert loss.item() / 4 == pytest.approx(math.log(2), abs=1e-12)
    assert sums["margin"].item() == pytest.approx(0, abs=1e-12)
    assert sums["kl_nats"].item() == pytest.approx(0, abs=1e-12)


def test_micro_batches_of_pairs_add_up_to_the_whole(
    model: Transformer, reference: Transformer, answers: list[Answer]
) -> None:
    batch = make_pairs(answers, reference)
    objective = DirectPreference(0.3)
    parts = [objective.loss_sum(model, batch.rows(start, start + 1))[0] for start in range(batch.n_rows)]
    torch.testing.assert_close(sum(parts), objective.loss_sum(model, batch)[0], rtol=1e-10, atol=0)


def test_margin_and_shares_are_reported(model: Transformer, reference: Transformer, answers: list[Answer]) -> None:
    _, sums = DirectPreference(0.3).loss_sum(model, make_pairs(answers, reference))
    policy = [log_probability(model, answer) for answer in answers]
    gains = [own - log_probability(reference, answer) for own, answer in zip(policy, answers, strict=True)]
    margins = [0.3 * (gains[row] - gains[row + 1]) for row in range(0, 8, 2)]
    assert sums["margin"].item() == pytest.approx(sum(margins).item())
    assert sums["accuracy"].item() == sum(margin > 0 for margin in margins)
    assert sums["chosen_likelier"].item() == sum(policy[row] > policy[row + 1] for row in range(0, 8, 2))
    assert sums["kl_nats"].item() > 0


def test_identical_pairs_and_empty_answers_give_no_nan(model: Transformer, reference: Transformer) -> None:
    same, empty = Answer([1, 2], [3, 4]), Answer([1, 2], [])
    for pair in ([same, same], [same, empty], [empty, empty]):
        loss, sums = DirectPreference(0.3, length_normalised=True).loss_sum(model, make_pairs(pair, reference))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert loss.isfinite()
        assert all(value.isfinite() for value in sums.values())
        if pair[0] is pair[1]:
            assert loss.item() == pytest.approx(math.log(2))
            assert all(gradient.abs().max() < 1e-12 for gradient in gradients)


def test_a_fully_masked_row_gives_no_nan(model: Transformer, reference: Transformer, answers: list[Answer]) -> None:
    batch = make_pairs(answers, reference)
    silent = replace(batch, labels=torch.full_like(batch.labels, -100))
    loss, _ = DirectPreference(0.3).loss_sum(model, silent)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, list(model.parameters())))
