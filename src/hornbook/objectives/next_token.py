"""Predict the next token: pretraining and fine-tuning alike.

Fine-tuning differs in its batches, not in its code: labels outside the assistant's answers are IGNORE_INDEX
there. Both numbers are sums, so bits per byte of a text is loss_sum / ln 2 / (bytes of the text), whatever
the tokenizer.
"""

import copy
from typing import Self

import torch
from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.transformer import Transformer
from hornbook.objectives.objective import Objective, chunked_cross_entropy_sum, filled_up, labelled


class NextToken(Objective):
    """The cross entropy of each label, given the tokens of its document up to it.

    `few_labels` says that most tokens have none, as where only answers are learned. Scores over the vocabulary are
    then computed for the others alone. How many these are differs from batch to batch, so this part is not compiled.
    """

    def __init__(self, few_labels: bool = False) -> None:
        self._cross_entropy_sum = _labelled_cross_entropy_sum if few_labels else chunked_cross_entropy_sum

    def count(self, batch: Batch) -> Tensor:
        """The number of tokens with a label: a scalar, int64."""
        return (batch.labels != IGNORE_INDEX).sum()

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross entropy summed over all labels, in nats, times the batch's weights where it has some."""
        hidden_BTD = model(batch.input_ids, batch.position_ids, batch.document_ids)
        return self._cross_entropy_sum(hidden_BTD, model.head_weight, batch.labels, batch.weights), {}

    def compiled(self) -> Self:
        """The same with a compiled cross entropy, unless it is of few labels."""
        same = copy.copy(self)
        if self._cross_entropy_sum is chunked_cross_entropy_sum:
            same._cross_entropy_sum = torch.compile(chunked_cross_entropy_sum, dynamic=False)
        return same


def _labelled_cross_entropy_sum(
    hidden_BTD: Tensor, head_weight_VD: Tensor, labels_BT: Tensor, weights_BT: Tensor | None
) -> Tensor:
    """`chunked_cross_entropy_sum` of the tokens with a label, put together as one row."""
    weights_1N = None if weights_BT is None else filled_up(weights_BT[labels_BT != IGNORE_INDEX])[None]
    hidden_ND, labels_N = labelled(hidden_BTD, labels_BT)
    return chunked_cross_entropy_sum(hidden_ND[None], head_weight_VD, labels_N[None], weights_1N)
