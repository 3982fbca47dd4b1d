"""Linear layers that read their weights as fast as the memory gives them, and may hold them as int8.

To write one token a model reads every weight once, so the time of a token is that of reading, and weights half as
large are read in half the time. On a CPU, torch reads float32 weights about as fast as the memory allows for one
vector, but not for two to sixteen, and bfloat16 ones much slower than it could; products.c does better for few
vectors. Beyond them the arithmetic takes longer than the reading, and torch's own product is the better one.

int8 is symmetric, row by row: scale = largest |weight| of the row / 127, weight ≈ scale * integer, as in
Dettmers et al., LLM.int8(), arXiv 2208.07339, section 2, but for weights alone.

Shapes: N vectors, I numbers of each, O rows of the matrix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hornbook.inference.kernels.library import Kernels

MOST_VECTORS = 32
"""Beyond so many vectors torch's own product of float32 or bfloat16 is faster."""


def int8_rows(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Integers (O,I) from -127 to 127, and the scales (O,) float32 that make them the weights again."""
    scales_O = weight_OI.float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight_OI.float() / scales_O[:, None]).round().to(torch.int8), scales_O


class FastLinear(nn.Module):
    """What `nn.Linear` computes, with weights as they are or as int8.

    kernels: None where there is no compiler; int8 weights are then rounded to int8 but held as they were, so
    that the answers are those of int8, without its gain.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, kernels: Kernels | None, is_int8: bool) -> None:
        super().__init__()
        self._kernels = kernels
        self.scales: Tensor | None = None  # on the CPU with the weights, where this module stays
        weight_OI = weight_OI.detach()
        if is_int8:
            integers_OI, scales_O = int8_rows(weight_OI)
            if kernels is None:
                weight_OI = (integers_OI * scales_O[:, None]).to(weight_OI.dtype)
            else:
                weight_OI, self.scales = integers_OI, scales_O
        self.weight = nn.Parameter(weight_OI.contiguous(), requires_grad=False)
        self.bias = None if bias_O is None else nn.Parameter(bias_O.detach(), requires_grad=False)

    @property
    def is_fast(self) -> bool:
        """Whether there is a faster product than torch's."""
        return self._kernels is not None

    def computes_in(self, x: Tensor) -> torch.dtype:
        """The dtype in which it multiplies vectors (...,I): float32, or that of the weights where torch does it."""
        return self.weight.dtype if self._is_for_torch(x) else torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """(...,I) → (...,O), in the input's dtype."""
        if self._is_for_torch(x):
            return _linear_of_few_lengths(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)
        assert self._kernels is not None
        out = self._kernels.multiply(self.weight, self.scales, x.float().contiguous())
        if self.bias is not None:
            out += self.bias
        return out.to(x.dtype)

    def _is_for_torch(self, x: Tensor) -> bool:
        n_vectors = x.numel() // x.shape[-1]
        return self._kernels is None or (self.scales is None and n_vectors > MOST_VECTORS)


def _linear_of_few_lengths(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """`F.linear`, in bfloat16 with vectors of zeros added, so that few numbers of vectors occur.

    For each number torch's product in bfloat16 is compiled anew, and what was compiled is kept: prompts come in every
    length, and the server would grow by megabytes with each (docs/LOG.md).
    """
    if x.dtype != torch.bfloat16:
        return F.linear(x, weight_OI, bias_O)
    x_NI = x.flatten(0, -2)
    # Up to a multiple of 16, or of the power of two between an eighth and a quarter of their number where that is more.
    n_more = -len(x_NI) % max(16, 1 << max(0, len(x_NI).bit_length() - 3))
    return F.linear(F.pad(x_NI, (0, 0, 0, n_more)), weight_OI, bias_O)[: len(x_NI)].unflatten(0, x.shape[:-1])
