"""Group-relative policy optimisation: learn from answers that the model gave itself, by the rewards they got.

Several answers are drawn for each prompt. What a reward is worth is judged within the group,

    advantage = (reward - mean of the group) / (standard deviation of the group + 1e-4),

so no second model has to learn to judge (Shao et al., arXiv 2402.03300). For each token of an answer with
ratio = π / π_old, where π_old is the model that drew it,

    loss = -min(ratio · advantage, clip(ratio, 1-ε, 1+ε) · advantage) + β (π_ref/π - 1 - log π_ref/π),

and these are averaged over the tokens of each answer and then over answers (equation 3 there), or over all tokens
alike (Yu et al., arXiv 2503.14476, equation 8): the batch's weights say which.

Shapes: B answers, G answers of a group, T tokens of a row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.transformer import Transformer
from hornbook.objectives.log_probabilities import token_log_probabilities
from hornbook.objectives.objective import Objective
from hornbook.objectives.preference import k3_divergence

_ADVANTAGE_EPSILON = 1e-4


@dataclass(frozen=True, kw_only=True)
class RolloutBatch(Batch):
    """Answers that the model drew, one a row, with what became of them. `weights` say how tokens are averaged.

    advantages, rewards (B,). group_passed (B,): whether any answer of the group was right. is_empty, is_endless (B,):
    answers without a word, and those that did not end. reference_log_probabilities, old_log_probabilities (B,T): what
    the reference, and the model that drew them, give each label; without the latter the model has not changed since.
    """

    advantages: Tensor
    rewards: Tensor
    group_passed: Tensor
    is_empty: Tensor
    is_endless: Tensor
    reference_log_probabilities: Tensor
    old_log_probabilities: Tensor | None = None


def group_advantages(rewards_B: Tensor, group_size: int) -> Tensor:
    """The advantages (B,) of rewards whose groups stand one after the other; 0 in a group where all are alike."""
    rewards_NG = rewards_B.view(-1, group_size)
    centred_NG = rewards_NG - rewards_NG.mean(1, keepdim=True)
    return (centred_NG / (rewards_NG.std(1, keepdim=True) + _ADVANTAGE_EPSILON)).flatten()


def token_weights(labels_BT: Tensor, average: str) -> Tensor:
    """Weights (B,T) whose weighted sum, over the number of answers, is the mean over "answers" or over "tokens"."""
    is_labelled_BT = (labels_BT != IGNORE_INDEX).float()
    n_labels_B1 = is_labelled_BT.sum(1, keepdim=True).clamp_min(1)
    if average == "answers":
        return is_labelled_BT / n_labels_B1
    return is_labelled_BT * len(labels_BT) / is_labelled_BT.sum().clamp_min(1)


class GroupRelativePolicy(Objective):
    """GRPO's loss, summed over answers. `clip_range` is ε, `kl_beta` is β."""

    def __init__(self, clip_range: float, kl_beta: float) -> None:
        self._clip_range, self._kl_beta = clip_range, kl_beta

    def count(self, batch: Batch) -> Tensor:
        """The number of answers."""
        return torch.tensor(batch.n_rows, device=batch.input_ids.device)

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over answers, and these sums over them:

        reward: the rewards. pass_in_group: whether a group has a right answer. empty, endless: such answers.
        answer_tokens: their lengths. ratio: the weighted mean of π / π_old over tokens, and kl_nats of the
        divergence from the reference. clipped: the weighted share of tokens whose ratio left the range.
        """
        if not isinstance(batch, RolloutBatch) or batch.weights is None:
            raise ValueError("a policy is learned from rollouts, whose weights say how they are averaged")
        weights_BT, advantages_B1 = batch.weights, batch.advantages[:, None]
        log_BT = token_log_probabilities(model, batch)
        old_BT = log_BT.detach() if batch.old_log_probabilities is None else batch.old_log_probabilities
        ratio_BT = (log_BT - old_BT).exp()
        clipped_BT = ratio_BT.clamp(1 - self._clip_range, 1 + self._clip_range)
        gains_BT = torch.minimum(ratio_BT * advantages_B1, clipped_BT * advantages_B1)
        kl_BT = k3_divergence(log_BT - batch.reference_log_probabilities)
        loss_sum = ((self._kl_beta * kl_BT - gains_BT) * weights_BT).sum()
        sums = {
            "reward": batch.rewards.sum(),
            "pass_in_group": batch.group_passed.sum(),
            "empty": batch.is_empty.sum(),
            "endless": batch.is_endless.sum(),
            "answer_tokens": (batch.labels != IGNORE_INDEX).sum(),
            "ratio": (ratio_BT * weights_BT).sum(),
            "kl_nats": (kl_BT * weights_BT).sum(),
            "clipped": ((ratio_BT != clipped_BT) * weights_BT).sum(),
        }
        return loss_sum, sums
