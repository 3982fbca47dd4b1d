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
from hornbook.objectives.block_cross_entropy import cross_entropy_sum_in_blocks, sums_in_blocks
from hornbook.objectives.objective import Objective, chunked_cross_entropy_sum, filled_up, labelled


class NextToken(Objective):
    """The cross entropy of each label, given the tokens of its document up to it.

    `few_labels` says that most tokens have none, as where only answers are learned. Scores over the vocabulary are
    then computed for the others alone. How many these are differs from batch to batch, so this part is not compiled.
    """

    def __init__(self, few_labels: bool = False) -> None:
        self._few_labels = few_labels
        self._cross_entropy_sum = chunked_cross_entropy_sum

    def count(self, batch: Batch) -> Tensor:
        """The number of tokens with a label: a scalar, int64."""
        return (batch.labels != IGNORE_INDEX).sum()

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross entropy summed over all labels, in nats, times the batch's weights where it has some."""
        hidden_BTD = model(batch.input_ids, batch.position_ids, batch.document_ids)
        labels_BT, weights_BT = batch.labels, batch.weights
        if self._few_labels:
            hidden_BTD, labels_BT, weights_BT = _one_row_of_labelled(hidden_BTD, labels_BT, weights_BT)
        in_blocks = sums_in_blocks(model.head_weight)
        cross_entropy_sum = cross_entropy_sum_in_blocks if in_blocks else self._cross_entropy_sum
        return cross_entropy_sum(hidden_BTD, model.head_weight, labels_BT, weights_BT), {}

    def compiled(self) -> Self:
        """The same with a compiled cross entropy, unless it is of few labels."""
        same = copy.copy(self)
        if not self._few_labels:
            same._cross_entropy_sum = torch.compile(chunked_cross_entropy_sum, dynamic=False)
        return same


def _one_row_of_labelled(
    hidden_BTD: Tensor, labels_BT: Tensor, weights_BT: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tokens with a label, their labels and their weights, put together as one row (1,N,...)."""
    weights_1N = None if weights_BT is None else filled_up(weights_BT[labels_BT != IGNORE_INDEX])[None]
    hidden_ND, labels_N = labelled(hidden_BTD, labels_BT)
    return hidden_ND[None], labels_N[None], weights_1N
