"""Normalisation: bring every token's vector to the same size before a layer reads it.

Both kinds compute in float32 at least: a mean of squares in bfloat16 has three significant digits, and its
error would reach every layer. The result has the input's dtype.

Shapes: `x` is (..., D), normalised over its last dimension.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hornbook.model.config import ModelConfig


class RMSNorm(nn.Module):
    """x / rms(x) * weight, with rms(x) = sqrt(mean(x²) + eps) (Zhang and Sennrich, arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = _widened(x)
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight.to(wide.dtype)).to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias (Ba et al., arXiv 1607.06450)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = _widened(x)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return F.layer_norm(wide, weight.shape, weight, bias, self.eps).to(x.dtype)


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def make_norm(config: ModelConfig, size: int) -> nn.Module:
    """The configured kind of normalisation for vectors of `size`."""
    kind = LayerNorm if config.norm == "layernorm" else RMSNorm
    return kind(size, config.norm_eps)
