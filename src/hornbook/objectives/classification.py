"""Tell the class of a text: cross entropy over the classes at its last token.

Shapes: B rows, T tokens of a row, N texts, D d_model, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.transformer import Transformer
from hornbook.objectives.objective import Objective


class Classification(Objective):
    """A batch's labels are classes, and stand at the last token of each text alone."""

    def count(self, batch: Batch) -> Tensor:
        """The number of texts."""
        return (batch.labels != IGNORE_INDEX).sum()

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross entropy summed over texts, in nats, times the batch's weights; and accuracy, the right ones."""
        scores_NC, labels_N = class_scores(model, batch), batch.labels[batch.labels != IGNORE_INDEX]
        losses_N = F.cross_entropy(scores_NC, labels_N, reduction="none")
        if batch.weights is not None:
            losses_N = losses_N * batch.weights[batch.labels != IGNORE_INDEX]
        return losses_N.sum(), {"accuracy": (scores_NC.argmax(1) == labels_N).sum()}


def class_scores(model: Transformer, batch: Batch) -> Tensor:
    """(N,C) in float32 at least: the scores of the classes for each text of the batch, row by row."""
    hidden_BTD = model(batch.input_ids, batch.position_ids, batch.document_ids)
    scores_NC = model.logits(hidden_BTD[batch.labels != IGNORE_INDEX])
    return scores_NC.to(torch.promote_types(scores_NC.dtype, torch.float32))
