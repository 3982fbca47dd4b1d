"""Attention for training in bfloat16 on a CPU, by C functions of our own (hornbook.kernels).

torch's fused kernel takes several times as long backwards in bfloat16 as in float32 there, and the plain formula goes
over a T × T table of weights that is larger than the cache. Here each head stays in it, and blocks of tokens that
nobody may look at are left out.

They are operations of torch, with their shapes and gradients declared, so the compiler takes them into its graphs.

Shapes: B rows, T tokens of a row, H heads, K kv heads, E head_dim.
"""

from typing import Any

import torch
from torch import Tensor

from hornbook.kernels.blocks import load_blocks

LONGEST_ROW_TOKENS = 2048
"""Beyond it the blocks of weights of one head, which the backward pass has at hand, need some hundred megabytes."""


def attention_in_blocks(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, first_seen_BT: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √E) V where each token sees those from `first_seen` on, up to itself: (B,H,T,E), bfloat16.

    first_seen: (B,T) or (1,T), int32, never falling in a row.
    """
    out_BHTE: Tensor = torch.ops.hornbook.attend(q_BHTE, k_BKTE, v_BKTE, first_seen_BT.expand(q_BHTE.shape[0], -1))[0]
    return out_BHTE


def trains_in_blocks(device: torch.device, n_tokens: int) -> bool:
    """Whether rows of that length, of which each token looks at a run of tokens up to itself, go this way.

    They do in training in bfloat16, which computes by autocast, on a CPU that has what it takes; and so does what a
    training compares itself with, which must be computed alike.
    """
    is_in_bfloat16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return device.type == "cpu" and is_in_bfloat16 and n_tokens <= LONGEST_ROW_TOKENS and load_blocks() is not None


def first_seen_of_documents(document_ids_BT: Tensor, window_tokens: int | None = None) -> Tensor:
    """(B,T) int32: the first token that each may look at, where a document's tokens stand one behind the other."""
    order_T = torch.arange(document_ids_BT.shape[1], device=document_ids_BT.device)
    begins_BT = torch.ones_like(document_ids_BT, dtype=torch.bool)
    begins_BT[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    first_BT = torch.where(begins_BT, order_T, 0).cummax(1).values
    if window_tokens is not None:
        first_BT = torch.maximum(first_BT, order_T - window_tokens + 1)
    return first_BT.int()


def mask_of_first_seen(first_seen_BT: Tensor) -> Tensor:
    """(B,1,T,T) truth values from the first token that each may look at."""
    order_T = torch.arange(first_seen_BT.shape[1], device=first_seen_BT.device)
    return (order_T <= order_T[:, None]) & (order_T >= first_seen_BT[:, None, :, None])


@torch.library.custom_op("hornbook::attend", mutates_args=())
def _attend(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, first_seen_BT: Tensor) -> tuple[Tensor, Tensor]:
    out_BHTE, log_sums_BHT = _empty_results(q_BHTE, k_BKTE, v_BKTE, first_seen_BT)
    _kernels().attend_forward(
        *map(_dense, (q_BHTE, k_BKTE, v_BKTE)), first_seen_BT.contiguous(), out_BHTE, log_sums_BHT
    )
    return out_BHTE, log_sums_BHT


@_attend.register_fake
def _empty_results(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, first_seen_BT: Tensor) -> tuple[Tensor, Tensor]:
    n_rows, n_heads, n_tokens, head_dim = q_BHTE.shape
    # A token's heads stand side by side, as the next product wants them.
    out_BTHE = q_BHTE.new_empty(n_rows, n_tokens, n_heads, head_dim)
    return out_BTHE.transpose(1, 2), q_BHTE.new_empty(n_rows, n_heads, n_tokens, dtype=torch.float32)


@torch.library.custom_op("hornbook::attend_backward", mutates_args=())
def _attend_backward(
    q_BHTE: Tensor,
    k_BKTE: Tensor,
    v_BKTE: Tensor,
    first_seen_BT: Tensor,
    log_sums_BHT: Tensor,
    grad_out_BHTE: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = (_dense(q_BHTE), _dense(k_BKTE), _dense(v_BKTE))
    grads = _empty_gradients(q_BHTE, k_BKTE, v_BKTE, first_seen_BT, log_sums_BHT, grad_out_BHTE)
    first_seen_BT, grad_out_BHTE = first_seen_BT.contiguous(), _dense(grad_out_BHTE)
    _kernels().attend_backward(*inputs, first_seen_BT, log_sums_BHT, grad_out_BHTE, grads)
    return grads


@_attend_backward.register_fake
def _empty_gradients(
    q_BHTE: Tensor,
    k_BKTE: Tensor,
    v_BKTE: Tensor,
    first_seen_BT: Tensor,
    log_sums_BHT: Tensor,
    grad_out_BHTE: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (each.new_empty(each.transpose(1, 2).shape).transpose(1, 2) for each in (q_BHTE, k_BKTE, v_BKTE))
    return q, k, v


def _keep_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, grad_out_BHTE: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.hornbook.attend_backward(*ctx.saved_tensors, grad_out_BHTE), None


_attend.register_autograd(_gradients, setup_context=_keep_for_backward)


def _dense(heads: Tensor) -> Tensor:
    return heads if heads.stride(-1) == 1 else heads.contiguous()


def _kernels() -> Any:
    kernels = load_blocks()
    if kernels is None:
        raise RuntimeError("no C compiler here, or a processor without bfloat16")
    return kernels
