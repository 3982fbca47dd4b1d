"""What the trainer asks of an objective, and the cross entropy that most of them are made of.

An objective gives a sum and a count, never a mean. The trainer adds up the count of the whole global batch
first, then backpropagates sum / count for each micro-batch, so the gradient does not depend on how the batch
was cut. A mean of means would weigh a row with few labels as much as a row with many.

The scores of all tokens over the whole vocabulary are the largest tensor of a small model's training step.
The cross entropy here makes them a few tokens at a time, and takes the gradient while they are still at hand,
so they are neither kept for the backward pass nor computed twice.

Shapes: B rows, T tokens of a row, N = B*T, C tokens of a chunk, D d_model, V vocabulary.
"""

from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.transformer import Transformer
from hornbook.parallel.tensor import Rows, own_rows

# Scores computed at once. On a CPU the chunk should stay in the cache (docs/LOG.md); accelerators want it large.
_SCORES_AT_ONCE_CPU = 2**21
_SCORES_AT_ONCE_ACCELERATOR = 2**27
_MIN_CHUNK_TOKENS = 256
_LABELLED_TOKENS_MULTIPLE = 64


class Objective(Protocol):
    """What a model is trained to do."""

    def count(self, batch: Batch) -> Tensor:
        """How many things the loss is summed over (tokens with a label, or pairs): a scalar, int64."""
        ...

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over the batch, in nats, to be backpropagated, and other sums to report.

        The trainer divides both by the count of the global batch.
        """
        ...

    def compiled(self) -> Self:
        """The same objective, with what it computes beside the model's layers compiled, where that pays.

        Here it does not: the tokens that have a label differ in number, and each number would be compiled anew.
        """
        return self


def labelled(hidden_BTD: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors (N,D) and labels (N,) of the tokens that have a label, in order, filled up."""
    is_labelled_BT = labels_BT != IGNORE_INDEX
    return filled_up(hidden_BTD[is_labelled_BT]), filled_up(labels_BT[is_labelled_BT], IGNORE_INDEX)


def filled_up(tensor: Tensor, value: float = 0) -> Tensor:
    """With more rows of `value` behind its own (N,...), up to a multiple of 64, so that few lengths occur.

    A processor's bfloat16 products are compiled for each length that they meet, and what was compiled is kept: with
    every length, gigabytes (docs/LOG.md, "A length of its own for every step").
    """
    n_more = -len(tensor) % _LABELLED_TOKENS_MULTIPLE
    return F.pad(tensor, (0, 0) * (tensor.ndim - 1) + (0, n_more), value=value)


def labels_and_weights(labels_BT: Tensor, weights_BT: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Labels (N,) that are words, each, and weights (N,) of the type, 0 where there was no label."""
    labels_N = labels_BT.flatten()
    weights_N = (labels_N != IGNORE_INDEX).to(dtype)
    if weights_BT is not None:
        weights_N = weights_N * weights_BT.flatten()
    return labels_N.clamp_min(0), weights_N


def chunked_cross_entropy_sum(
    hidden_BTD: Tensor,
    head_weight_VD: Tensor,
    labels_BT: Tensor,
    weights_BT: Tensor | None = None,
    chunk_tokens: int | None = None,
) -> Tensor:
    """Sum over all tokens of weight * -log softmax(hidden @ head_weight^T)[label], in nats, as a scalar.

    Tokens whose label is IGNORE_INDEX add nothing, so a batch without labels gives 0. The products are made
    in autocast's type where it is on; softmax, loss and the sum over chunks are in float32 at least. The
    gradient can be taken once, not twice. `chunk_tokens` changes memory and speed alone; by default it
    follows the device. Where processes share the vocabulary's rows, all of them have to call it.
    """
    device = hidden_BTD.device
    compute_dtype = torch.promote_types(hidden_BTD.dtype, head_weight_VD.dtype)
    if torch.is_autocast_enabled(device.type) and compute_dtype != torch.float64:
        compute_dtype = torch.get_autocast_dtype(device.type)
    if chunk_tokens is None:
        scores = _SCORES_AT_ONCE_CPU if device.type == "cpu" else _SCORES_AT_ONCE_ACCELERATOR
        chunk_tokens = max(_MIN_CHUNK_TOKENS, scores // head_weight_VD.shape[0])
    labels_N, weights_N = labels_and_weights(labels_BT, weights_BT, torch.promote_types(compute_dtype, torch.float32))
    rows = None
    if isinstance(head_weight_VD, DTensor):
        head_weight_VD, rows = own_rows(head_weight_VD)
    loss_sum: Tensor = _ChunkedCrossEntropySum.apply(
        hidden_BTD.flatten(0, 1),
        head_weight_VD,
        labels_N,
        weights_N,
        compute_dtype,
        chunk_tokens,
        torch.is_grad_enabled(),
        rows,
    )
    return loss_sum


class _ChunkedCrossEntropySum(torch.autograd.Function):
    """Loss and gradient in one pass.

    For one token with scores s, and z = sum exp(s - max s), the loss is log z + max s - s[label], and its gradient with
    respect to s is (exp(s - max s) - z onehot(label)) / z. The division by z and the weight are applied on the narrow
    side of the products, where they cost nothing; so each score is exponentiated once, in place.

    rows: which rows of the vocabulary this process has, where it shares them; V is then their number. Processes
    exchange three numbers for each token, never the scores, and the gradient of the vectors at the end.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_weight_VD: Tensor,
        labels_N: Tensor,
        weights_N: Tensor,
        compute_dtype: torch.dtype,
        chunk_tokens: int,
        with_gradient: bool,
        rows: Rows | None,
    ) -> Tensor:
        head_VD = head_weight_VD.to(compute_dtype)
        loss_sum = weights_N.new_zeros(())
        hidden_grads, head_grad_VD = [], torch.zeros_like(head_weight_VD) if with_gradient else None
        for hidden_CD, labels_C, weights_C in zip(
            hidden_ND.split(chunk_tokens),
            labels_N.split(chunk_tokens),
            weights_N.split(chunk_tokens),
            strict=True,
        ):
            hidden_CD = hidden_CD.to(compute_dtype)
            labels_C1, weights_C1 = labels_C[:, None], weights_C[:, None]
            is_here_C1: Tensor | float = 1.0
            if rows is not None:
                labels_C1, is_here_C1 = rows.find(labels_C1)
            scores_CV = (hidden_CD @ head_VD.T).to(weights_N.dtype)
            largest_C1, score_of_label_C1 = scores_CV.amax(1, keepdim=True), scores_CV.gather(1, labels_C1)
            if rows is not None:
                rows.largest(largest_C1)
            exponentials_CV = scores_CV.sub_(largest_C1).exp_()
            sum_C1 = exponentials_CV.sum(1, keepdim=True)
            if rows is not None:
                sums_2C1 = torch.stack([sum_C1, score_of_label_C1 * is_here_C1])
                rows.add_up(sums_2C1)
                sum_C1, score_of_label_C1 = sums_2C1
            loss_sum = loss_sum + ((sum_C1.log() + largest_C1 - score_of_label_C1) * weights_C1).sum()
            if head_grad_VD is not None:
                # Subtracted before anything is rounded: a likely label's gradient is a small difference.
                scores_grad_CV = exponentials_CV.scatter_add_(1, labels_C1, -sum_C1 * is_here_C1).to(compute_dtype)
                factor_C1 = weights_C1 / sum_C1
                hidden_grads.append(((scores_grad_CV @ head_VD) * factor_C1).to(hidden_ND.dtype))
                weighted_hidden_CD = (hidden_CD * factor_C1).to(compute_dtype)
                if head_grad_VD.dtype == compute_dtype:
                    torch.addmm(head_grad_VD, scores_grad_CV.T, weighted_hidden_CD, out=head_grad_VD)
                else:
                    head_grad_VD += scores_grad_CV.T @ weighted_hidden_CD
        if head_grad_VD is not None:
            hidden_grad_ND = torch.cat(hidden_grads)
            if rows is not None:
                rows.add_up(hidden_grad_ND)
            ctx.save_for_backward(hidden_grad_ND, head_grad_VD)
        return loss_sum

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad_ND, head_grad_VD = ctx.saved_tensors
        # In place, since it is as large as the head. Compiled code may not change what it saved.
        scaled_VD = head_grad_VD * grad if torch.compiler.is_compiling() else head_grad_VD.mul_(grad)
        return hidden_grad_ND * grad, scaled_VD, None, None, None, None, None, None
