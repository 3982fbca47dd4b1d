"""A model whose linear layers read their weights as fast as the memory gives them, and may hold them as int8.

To write one token a model reads every weight once, so the time of a token is that of reading, and weights half as
large are read in half the time. On a CPU, torch reads float32 weights about as fast as the memory allows for one
vector, but not for two to sixteen, and bfloat16 ones much slower than it could; products.c does better for few
vectors. Beyond them the arithmetic takes longer than the reading, and torch's own product is the better one.

int8 is symmetric, row by row: scale = largest |weight| of the row / 127, weight ≈ scale * integer, as in
Dettmers et al., LLM.int8(), arXiv 2208.07339, section 2, but for weights alone.

Shapes: N vectors, I numbers of each, O rows of the matrix.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hornbook.inference.products import Products, load_products
from hornbook.model.transformer import Transformer

MOST_VECTORS = 32
"""Beyond so many vectors torch's own product of float32 or bfloat16 is faster."""


def int8_rows(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Integers (O,I) from -127 to 127, and the scales (O,) float32 that make them the weights again."""
    scales_O = weight_OI.float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight_OI.float() / scales_O[:, None]).round().to(torch.int8), scales_O


class FastLinear(nn.Module):
    """What `nn.Linear` computes, with weights as they are or as int8.

    products: None where there is no compiler; int8 weights are then rounded to int8 but held as they were, so
    that the answers are those of int8, without its gain.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, products: Products | None, is_int8: bool) -> None:
        super().__init__()
        self._products = products
        self.scales: Tensor | None = None  # on the CPU with the weights, where this module stays
        weight_OI = weight_OI.detach()
        if is_int8:
            integers_OI, scales_O = int8_rows(weight_OI)
            if products is None:
                weight_OI = (integers_OI * scales_O[:, None]).to(weight_OI.dtype)
            else:
                weight_OI, self.scales = integers_OI, scales_O
        self.weight = nn.Parameter(weight_OI.contiguous(), requires_grad=False)
        self.bias = None if bias_O is None else nn.Parameter(bias_O.detach(), requires_grad=False)

    @property
    def is_fast(self) -> bool:
        """Whether there is a faster product than torch's."""
        return self._products is not None

    def forward(self, x: Tensor) -> Tensor:
        """(...,I) → (...,O), in the input's dtype."""
        n_vectors = x.numel() // x.shape[-1]
        if self._products is None or (self.scales is None and n_vectors > MOST_VECTORS):
            return F.linear(x, self.weight, self.bias)
        vectors_NI = x.reshape(n_vectors, x.shape[-1]).float().contiguous()
        out_NO = self._products.multiply(self.weight, self.scales, vectors_NI)
        if self.bias is not None:
            out_NO += self.bias
        return out_NO.to(x.dtype).view(*x.shape[:-1], len(self.weight))


class FastTransformer(Transformer):
    """The same model for use alone. Its embeddings, a lookup, stay as they are."""

    head: FastLinear
    is_int8: bool

    @classmethod
    def of(cls, model: Transformer, is_int8: bool = False) -> Self:
        """Take over a model on a CPU: its layers change, and it must not be used any more."""
        with torch.device("meta"):
            made = cls(model.config)
        products = load_products()
        made.model, made.is_int8 = model.model, is_int8
        made.head = FastLinear(model.head_weight, None, products, is_int8)
        made.lm_head = None
        for parent in list(made.model.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(parent, name, FastLinear(layer.weight, layer.bias, products, is_int8))
        return made

    @property
    def is_fast(self) -> bool:
        """Whether the products of products.c are there, and with them the gain of int8."""
        return self.head.is_fast

    @property
    def head_weight(self) -> Tensor:
        """(V,D): the weights of the scores, as they count."""
        weight, scales = self.head.weight, self.head.scales
        return weight if scales is None else weight * scales[:, None]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (...,V) of the next token from the vectors (...,D)."""
        return self.head(hidden)
