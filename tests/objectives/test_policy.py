"""GRPO against its formula worked out by hand, and at its start."""

from dataclasses import replace

import pytest
import torch

from hornbook.model.transformer import Transformer
from hornbook.objectives.answers import Answer, answer_batch, answer_tensors
from hornbook.objectives.log_probabilities import token_log_probabilities
from hornbook.objectives.policy import GroupRelativePolicy, RolloutBatch, group_advantages, token_weights

ROW_TOKENS, PAD_ID, GROUP = 12, 0, 4
REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)


def make_rollouts(
    answers: list[Answer], reference: Transformer, old: Transformer | None, average: str = "answers"
) -> RolloutBatch:
    plain = answer_batch(answers, ROW_TOKENS, PAD_ID)
    with torch.no_grad():
        reference_BT = token_log_probabilities(reference, plain)
        old_BT = None if old is None else token_log_probabilities(old, plain)
    return RolloutBatch(
        **answer_tensors(answers, ROW_TOKENS, PAD_ID),
        weights=token_weights(plain.labels, average),
        advantages=group_advantages(REWARDS, GROUP),
        rewards=REWARDS,
        group_passed=torch.ones(8),
        is_empty=torch.zeros(8),
        is_endless=torch.zeros(8),
        reference_log_probabilities=reference_BT,
        old_log_probabilities=old_BT,
    )


def log_probabilities(model: Transformer, answer: Answer) -> torch.Tensor:
    ids = torch.tensor([*answer.prompt, *answer.ids])
    all_BV = model.logits(model(ids[None]))[0].log_softmax(-1)
    return torch.stack([all_BV[place, ids[place + 1]] for place in range(len(answer.prompt) - 1, len(ids) - 1)])


def worked_out(
    model: Transformer, reference: Transformer, old: Transformer, answers: list[Answer], average: str
) -> torch.Tensor:
    """The mean loss over answers, token by token."""
    advantages = []
    for group in REWARDS.split(GROUP):
        advantages += [(reward - group.mean()) / (group.std() + 1e-4) for reward in group]
    per_answer = []
    for answer, advantage in zip(answers, advantages, strict=True):
        own = log_probabilities(model, answer)
        ratio = (own - log_probabilities(old, answer).detach()).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        gap = log_probabilities(reference, answer) - own
        per_answer.append(0.1 * (gap.exp() - gap - 1) - gain)
    if average == "answers":
        return torch.stack([losses.mean() for losses in per_answer]).mean()
    return torch.cat(per_answer).mean()


@pytest.mark.parametrize("average", ["answers", "tokens"])
def test_loss_and_gradients_are_those_of_the_formula(
    model: Transformer, reference: Transformer, answers: list[Answer], average: str
) -> None:
    old = reference  # far enough from the model that ratios leave their range
    batch, objective = make_rollouts(answers, reference, old, average), GroupRelativePolicy(0.2, 0.1)
    loss, sums = objective.loss_sum(model, batch)
    loss = loss / objective.count(batch)
    expected = worked_out(model, reference, old, answers, average)
    assert sums["clipped"].item() > 0
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)  # weights are float32
    ours = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(ours, torch.autograd.grad(expected, list(model.parameters())), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("draws_first", [False, True])
def test_at_the_start_the_ratio_is_one_and_the_divergence_zero(
    model: Transformer, answers: list[Answer], draws_first: bool
) -> None:
    _, sums = GroupRelativePolicy(0.2, 0.1).loss_sum(
        model, make_rollouts(answers, model, model if draws_first else None)
    )
    assert sums["ratio"].item() / 8 == pytest.approx(1, abs=1e-7)
    assert sums["kl_nats"].item() == pytest.approx(0, abs=1e-12)
    assert sums["clipped"].item() == 0


def test_advantages_are_judged_within_the_group_and_alike_rewards_give_none() -> None:
    advantages = group_advantages(torch.tensor([1.0, 0.0, 1.0, 1.0]), 2)
    assert advantages.tolist() == pytest.approx([0.70701, -0.70701, 0, 0], abs=1e-4)


def test_groups_that_teach_nothing_have_no_gradient(model: Transformer, answers: list[Answer]) -> None:
    batch = make_rollouts(answers, model, None)
    batch = replace(batch, advantages=group_advantages(torch.ones(8, dtype=torch.float64), GROUP))
    loss, _ = GroupRelativePolicy(0.2, 0.0).loss_sum(model, batch)
    assert all(gradient.abs().max() < 1e-12 for gradient in torch.autograd.grad(loss, list(model.parameters())))


def test_an_answer_without_a_token_gives_no_nan(model: Transformer, reference: Transformer) -> None:
    answers = [Answer([1, 2], [3])] * 7 + [Answer([1, 2], [])]
    for average in ("answers", "tokens"):
        loss, sums = GroupRelativePolicy(0.2, 0.1).loss_sum(model, make_rollouts(answers, reference, None, average))
        assert loss.isfinite()
        assert all(torch.as_tensor(value).isfinite() for value in sums.values())
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, list(model.parameters())))
