"""Attention for training in bfloat16 on a CPU: the plain formula, with a backward pass of its own.

There the products cost little, and what takes the time is going over the T × T table of weights, which is larger than
the processor's cache. So it is gone over as seldom as can be. What may be seen is a number that is added, 0 or -inf.
The weights stay as they are, and their sums divide what comes out, which is narrow. And the backward pass takes its
sums over the rows of the table from what came out (Dao et al., FlashAttention, arXiv 2205.14135, equation 4).

Shapes: B rows, T tokens of a row, H heads, E head_dim.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def added_mask(mask_B1TT: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to a score for the mask's sake: 0 where it may be seen, else -inf."""
    return torch.zeros(mask_B1TT.shape, dtype=dtype, device=mask_B1TT.device).masked_fill_(~mask_B1TT, float("-inf"))


def softmax_attention(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, added_B1TT: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √head_dim + added) V, with as many keys as queries. Each token must see one at least."""
    attended: Tensor = _SoftmaxAttention.apply(q_BHTE, k_BHTE, v_BHTE, added_B1TT)
    return attended


@contextmanager
def exact_products() -> Iterator[None]:
    """Within the block, products of float32 numbers take their factors in bfloat16 and add up in float32.

    For factors that come from bfloat16 nothing is lost, and such a product takes a quarter of the time.
    """
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """The product in a type that is wider than the factors', so that its sums are not rounded to theirs."""
    with torch.autocast(left.device.type, enabled=False):
        return left.to(dtype) @ right.to(dtype)


class _SoftmaxAttention(torch.autograd.Function):
    """With weights w = exp(s - max s) and their sums z the output is o = w V / z.

    For its gradient g, and d = Σ g o: the gradient of the scores is w (g Vᵀ - d) / z. The two products that are not yet
    weighed, Q Kᵀ and g Vᵀ, keep the digits of their sums: what is looked for is often a small difference in them.
    """

    @staticmethod
    def forward(ctx: Any, q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, added_B1TT: Tensor) -> Tensor:
        wide = torch.promote_types(v_BHTE.dtype, torch.float32)
        scores_BHTT = _product(q_BHTE, k_BHTE.mT, wide).mul_(q_BHTE.shape[-1] ** -0.5).add_(added_B1TT)
        weights_BHTT = scores_BHTT.sub_(scores_BHTT.amax(-1, keepdim=True)).exp_().to(v_BHTE.dtype)
        sums_BHT1 = weights_BHTT.sum(-1, keepdim=True, dtype=wide)
        out_BHTE = ((weights_BHTT @ v_BHTE).to(wide) / sums_BHT1).to(v_BHTE.dtype)
        ctx.save_for_backward(q_BHTE, k_BHTE, v_BHTE, weights_BHTT, sums_BHT1, out_BHTE)
        return out_BHTE

    @staticmethod
    def backward(ctx: Any, grad_BHTE: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_BHTE, k_BHTE, v_BHTE, weights_BHTT, sums_BHT1, out_BHTE = ctx.saved_tensors
        wide, narrow = sums_BHT1.dtype, v_BHTE.dtype
        shared_BHTE = (grad_BHTE.to(wide) / sums_BHT1).to(narrow)
        along_BHT1 = (shared_BHTE.to(wide) * out_BHTE.to(wide)).sum(-1, keepdim=True)
        of_weights_BHTT = _product(shared_BHTE, v_BHTE.mT, wide).sub_(along_BHT1)
        of_scores_BHTT = of_weights_BHTT.mul_(weights_BHTT).mul_(q_BHTE.shape[-1] ** -0.5).to(narrow)
        return of_scores_BHTT @ k_BHTE, of_scores_BHTT.mT @ q_BHTE, weights_BHTT.mT @ shared_BHTE, None
