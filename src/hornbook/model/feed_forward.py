"""The feed-forward half of a layer: each token is widened to d_ff, bent, and narrowed again.

Shapes: B rows, T tokens of a row, D d_model.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hornbook.model.config import ModelConfig


class GeluFeedForward(nn.Module):
    """down(gelu(up(x))), GPT-2's: the tanh approximation of GELU (Hendrycks and Gimpel, arXiv 1606.08415)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=config.mlp_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.up_proj(x_BTD), approximate="tanh"))


class SwigluFeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)), Llama's: the gate decides how much passes (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=config.mlp_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(_Gated.apply(self.gate_proj(x_BTD), self.up_proj(x_BTD)))


class _Gated(torch.autograd.Function):
    """silu(gate) * up, which keeps these two alone for the backward pass: silu(gate) costs next to nothing again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), grad * F.silu(gate)


def make_feed_forward(config: ModelConfig) -> nn.Module:
    """The configured kind of feed-forward."""
    return GeluFeedForward(config) if config.activation == "gelu" else SwigluFeedForward(config)
