"""The cross entropy for training in bfloat16 on a CPU with tiles, by a C function of our own (hornbook.kernels).

There the products are so fast that what takes the time is going over scores in memory, even a few tokens' at a time.
In C they stay in the cache. Nothing of it is compiled, so batches of any length cost nothing extra.

Shapes: B rows, T tokens of a row, N = B*T, D d_model, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from hornbook.kernels.blocks import load_blocks
from hornbook.objectives.objective import labels_and_weights


def sums_in_blocks(head_weight_VD: Tensor) -> bool:
    """Whether the cross entropy over this head goes this way: in bfloat16, which is by autocast, and the head whole."""
    is_in_bfloat16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    is_whole = head_weight_VD.dtype == torch.float32 and not isinstance(head_weight_VD, DTensor)
    if not (is_in_bfloat16 and is_whole and head_weight_VD.device.type == "cpu"):
        return False
    kernels = load_blocks()
    return kernels is not None and kernels.cross_entropy_pays


def cross_entropy_sum_in_blocks(
    hidden_BTD: Tensor, head_weight_VD: Tensor, labels_BT: Tensor, weights_BT: Tensor | None = None
) -> Tensor:
    """As `chunked_cross_entropy_sum`, products in bfloat16: a scalar, float32. The gradient can be taken once.

    labels: int64.
    """
    labels_N, weights_N = labels_and_weights(labels_BT, weights_BT, torch.float32)
    loss_sum: Tensor = _CrossEntropySumInBlocks.apply(
        hidden_BTD.flatten(0, 1), head_weight_VD, labels_N, weights_N, torch.is_grad_enabled()
    )
    return loss_sum


class _CrossEntropySumInBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_weight_VD: Tensor,
        labels_N: Tensor,
        weights_N: Tensor,
        with_gradient: bool,
    ) -> Tensor:
        kernels = load_blocks()
        if kernels is None:
            raise RuntimeError("no C compiler here, or a processor without bfloat16")
        losses_N, grads = torch.empty_like(weights_N), None
        if with_gradient:
            ctx.hidden_dtype = hidden_ND.dtype
            grads = (
                hidden_ND.new_empty(hidden_ND.shape, dtype=torch.float32),
                head_weight_VD.new_empty(head_weight_VD.shape),
            )
            ctx.save_for_backward(*grads)
        hidden_ND = hidden_ND.to(torch.bfloat16).contiguous()
        kernels.cross_entropy(hidden_ND, head_weight_VD.contiguous(), labels_N, weights_N, losses_N, grads)
        return losses_N.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad_ND, head_grad_VD = ctx.saved_tensors
        # In place, since they are large and nobody else's.
        return hidden_grad_ND.mul_(grad).to(ctx.hidden_dtype), head_grad_VD.mul_(grad), None, None, None
