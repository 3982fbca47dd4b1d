"""How likely a model finds each token of the answers: what preference and reinforcement learning are made of.

Scores are computed for tokens with a label alone, some at a time, and once more in the backward pass, so that
the scores of a whole batch over a large vocabulary are never held.

Shapes: B rows, T tokens of a row, N tokens with a label, D d_model, V vocabulary.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.transformer import Transformer
from hornbook.objectives.objective import labelled

# On a CPU as few as the cross entropy makes at once (objective.py); accelerators want more, but here they hold them
# in float32, with the gradients of two steps.
_SCORES_AT_ONCE_CPU = 2**21
_SCORES_AT_ONCE_ACCELERATOR = 2**24
_MIN_CHUNK_TOKENS = 256


def token_log_probabilities(model: Transformer, batch: Batch) -> Tensor:
    """(B,T): the log-probability in nats of each label, given what stands before it; 0 where there is none."""
    hidden_BTD = model(batch.input_ids, batch.position_ids, batch.document_ids)
    hidden_ND, labels_N = labelled(hidden_BTD, batch.labels)
    scores = _SCORES_AT_ONCE_CPU if hidden_BTD.device.type == "cpu" else _SCORES_AT_ONCE_ACCELERATOR
    n_at_once = max(_MIN_CHUNK_TOKENS, scores // model.head_weight.shape[0])
    parts = [
        checkpoint(_log_probabilities, hidden, model.head_weight, labels, use_reentrant=False)
        for hidden, labels in zip(hidden_ND.split(n_at_once), labels_N.split(n_at_once), strict=True)
    ]
    is_labelled_BT = batch.labels != IGNORE_INDEX
    log_probabilities_N = torch.cat(parts)[: int(is_labelled_BT.sum())]
    nothing_BT = torch.zeros(batch.labels.shape, dtype=log_probabilities_N.dtype, device=batch.labels.device)
    return nothing_BT.masked_scatter(is_labelled_BT, log_probabilities_N)


def _log_probabilities(hidden_ND: Tensor, head_weight_VD: Tensor, labels_N: Tensor) -> Tensor:
    scores_NV = hidden_ND @ head_weight_VD.T
    # The softmax is in float32 at least, as everywhere.
    log_probabilities_NV = scores_NV.to(torch.promote_types(scores_NV.dtype, torch.float32)).log_softmax(-1)
    return log_probabilities_NV.gather(1, labels_N.clamp_min(0)[:, None]).squeeze(1)
