"""Direct preference optimisation: make the better of two answers likelier, without a model of rewards in between.

    loss = -log σ(β [(log π(chosen) - log π_ref(chosen)) - (log π(rejected) - log π_ref(rejected))])

(Rafailov et al., arXiv 2305.18290, equation 7.) π is the model that is trained, π_ref the one that it started from;
β says how far it may go. Label smoothing ε takes the labels to be wrong with that probability: (1-ε) times the loss
above and ε times that of the pair turned round (Mitchell 2023, "A note on DPO with noisy preferences"). Normalised by
length, each log-ratio is divided by the tokens of its answer, so that a long answer counts no more than a short one
(Lambert et al., arXiv 2411.15124, section 5.1).

Where π is π_ref, the loss is ln 2 whatever the pairs are.

Shapes: P pairs, B = 2P rows, T tokens of a row.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.transformer import Transformer
from hornbook.objectives.log_probabilities import token_log_probabilities
from hornbook.objectives.objective import Objective


@dataclass(frozen=True, kw_only=True)
class PairBatch(Batch):
    """Pairs of answers: row 2i holds the chosen one of pair i, row 2i + 1 the rejected one, each with its prompt.

    reference_log_probabilities (B,T): what the model that training started from gives each label, 0 where there is
    none. What is cut into micro-batches is pairs.
    """

    reference_log_probabilities: Tensor

    @property
    def n_rows(self) -> int:
        return self.input_ids.shape[0] // 2

    def rows(self, start: int, stop: int) -> Self:
        return super().rows(2 * start, 2 * stop)


class DirectPreference(Objective):
    """DPO's loss, summed over pairs.

    beta: how strongly the distance from the reference counts. label_smoothing: the probability that a pair is the
    wrong way round, below 0.5. length_normalised: compare log-ratios per token.
    """

    def __init__(self, beta: float, label_smoothing: float = 0.0, length_normalised: bool = False) -> None:
        self._beta, self._label_smoothing, self._length_normalised = beta, label_smoothing, length_normalised

    def count(self, batch: Batch) -> Tensor:
        """The number of pairs."""
        return torch.tensor(batch.n_rows, device=batch.input_ids.device)

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over pairs, in nats, and these sums:

        accuracy: pairs whose chosen answer gained more than the other (no gain, as at the start, is none).
        chosen_likelier: pairs whose chosen answer has the higher probability, whatever it had before. margin: β times
        the difference of their log-ratios. chosen_reward, rejected_reward: β times each log-ratio. kl_nats: an
        estimate of how far the model has gone from the reference, from the tokens of the chosen answers: the mean over
        tokens of r - 1 - log r with r = π_ref / π (Schulman 2020, "Approximating KL divergence"). These answers are not
        the model's own, so it shows the drift and is not the divergence itself. (The rejected ones cannot serve: they
        become so unlikely that r is anything up to 10^14.)
        """
        if not isinstance(batch, PairBatch):
            raise ValueError("preferences are learned from pairs")
        log_BT = token_log_probabilities(model, batch)
        log_ratios_BT = log_BT - batch.reference_log_probabilities
        n_labels_B = (batch.labels != IGNORE_INDEX).sum(1).clamp_min(1)
        rewards_B = self._beta * log_ratios_BT.sum(1)
        if self._length_normalised:
            rewards_B = rewards_B / n_labels_B
        chosen_P, rejected_P = rewards_B[0::2], rewards_B[1::2]
        margins_P = chosen_P - rejected_P
        losses_P = -(1 - self._label_smoothing) * F.logsigmoid(margins_P)
        losses_P = losses_P - self._label_smoothing * F.logsigmoid(-margins_P)
        kl_P = k3_divergence(log_ratios_BT[0::2].detach()).sum(1) / n_labels_B[0::2]
        sums = {
            "accuracy": (margins_P > 0).sum(),
            "chosen_likelier": (log_BT[0::2].sum(1) > log_BT[1::2].sum(1)).sum(),
            "margin": margins_P.sum(),
            "chosen_reward": chosen_P.sum(),
            "rejected_reward": rejected_P.sum(),
            "kl_nats": kl_P.sum(),
        }
        return losses_P.sum(), sums


def k3_divergence(log_ratios: Tensor) -> Tensor:
    """r - 1 - log r of log-ratios log π/π_ref, with r = π_ref / π: never negative, and 0 where they agree."""
    return torch.expm1(-log_ratios) + log_ratios
