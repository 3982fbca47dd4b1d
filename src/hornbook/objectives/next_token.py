"""Predict the next token: pretraining and fine-tuning alike.

Fine-tuning differs in its batches, not in its code: labels outside the assistant's answers are IGNORE_INDEX
there. Both numbers are sums, so bits per byte of a text is loss_sum / ln 2 / (bytes of the text), whatever
the tokenizer.
"""

from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.transformer import Transformer
from hornbook.objectives.objective import chunked_cross_entropy_sum


class NextToken:
    """The cross entropy of each label, given the tokens of its document up to it."""

    def count(self, batch: Batch) -> Tensor:
        """The number of tokens with a label: a scalar, int64."""
        return (batch.labels != IGNORE_INDEX).sum()

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross entropy summed over all labels, in nats, times the batch's weights where it has some."""
        hidden_BTD = model(batch.input_ids, batch.position_ids, batch.document_ids)
        loss = chunked_cross_entropy_sum(hidden_BTD, model.head_weight, batch.labels, batch.weights)
        return loss, {}
