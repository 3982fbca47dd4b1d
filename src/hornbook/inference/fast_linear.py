"""A model whose linear layers read their weights as fast as the memory gives them, and may hold them as int8.

To write one token a model reads every weight once, so the time of a token is that of reading, and weights half as
large are read in half the time. On a CPU, torch reads float32 weights about as fast as the memory allows for one
vector, but not for two to sixteen, and bfloat16 ones much slower than it could; products.c does better for few
vectors. Beyond them the arithmetic takes longer than the reading, and torch's own product is the better one.

int8 is symmetric, row by row: scale = largest |weight| of the row / 127, weight ≈ scale * integer, as in
Dettmers et al., LLM.int8(), arXiv 2208.07339, section 2, but for weights alone.

Reading int8 takes so little time that the rest shows: so products of the same vectors are made in one.

Shapes: N vectors, I numbers of each, O rows of the matrix; else as in `hornbook.model.attention`, N also all heads.
"""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hornbook.inference.products import Products, load_products
from hornbook.model.attention import Attention, KeyValueCache, attend
from hornbook.model.feed_forward import GeluFeedForward, SwigluFeedForward
from hornbook.model.normalization import RMSNorm
from hornbook.model.rotary import rotate
from hornbook.model.transformer import Layer, Transformer

MOST_VECTORS = 32
"""Beyond so many vectors torch's own product of float32 or bfloat16 is faster; of bfloat16 on a processor with AMX,
which multiplies whole tiles, from two on."""


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
        has_tiles = weight_OI.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
        self._most_vectors = 1 if has_tiles else MOST_VECTORS
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
        if self._products is None or (self.scales is None and n_vectors > self._most_vectors):
            return _linear_of_few_lengths(x, self.weight, self.bias)
        out = self._products.multiply(self.weight, self.scales, x.float().contiguous())
        if self.bias is not None:
            out += self.bias
        return out.to(x.dtype)


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


class FastAttention(nn.Module):
    """`hornbook.model.attention.Attention` with its three first products in one; queries and keys turn at once."""

    def __init__(self, attention: Attention, fast: Callable[..., FastLinear]) -> None:
        super().__init__()
        self.layer, self.head_dim = attention.layer, attention.head_dim
        first = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.n_heads, self.n_kv_heads, _ = (linear.out_features // self.head_dim for linear in first)
        self.qkv_proj, self.o_proj = fast(*first), fast(attention.o_proj)
        self.q_norm = None if attention.q_norm is None else fast_norm(attention.q_norm)
        self.k_norm = None if attention.k_norm is None else fast_norm(attention.k_norm)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask_B1TS: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        heads_BNTE = self.qkv_proj(x_BTD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        qk_BNTE, v_BKTE = heads_BNTE.split((self.n_heads + self.n_kv_heads, self.n_kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q_BHTE, k_BKTE = qk_BNTE.split((self.n_heads, self.n_kv_heads), dim=1)
            qk_BNTE = torch.cat((self.q_norm(q_BHTE), self.k_norm(k_BKTE)), dim=1)
        if rotary is not None:
            qk_BNTE = rotate(qk_BNTE, *rotary)
        q_BHTE, k_BKTE = qk_BNTE.split((self.n_heads, self.n_kv_heads), dim=1)
        if cache is not None:
            k_BKTE, v_BKTE = cache.store(self.layer, k_BKTE, v_BKTE)
        return self.o_proj(attend(q_BHTE, k_BKTE, v_BKTE, mask_B1TS).transpose(1, 2).flatten(2))


class FastSwiglu(nn.Module):
    """`hornbook.model.feed_forward.SwigluFeedForward` with its two first products in one."""

    def __init__(self, feed_forward: SwigluFeedForward, fast: Callable[..., FastLinear]) -> None:
        super().__init__()
        self.gate_up_proj = fast(feed_forward.gate_proj, feed_forward.up_proj)
        self.down_proj = fast(feed_forward.down_proj)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x_BTD).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class FastRMSNorm(nn.Module):
    """`hornbook.model.normalization.RMSNorm` by torch's one operation, for float32."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def fast_norm(norm: nn.Module) -> nn.Module:
    """The faster norm where there is one with the same numbers."""
    if isinstance(norm, RMSNorm) and norm.weight.dtype == torch.float32:
        return FastRMSNorm(norm)
    return norm


class FastTransformer(Transformer):
    """The same model for use alone. Its embeddings, a lookup, stay as they are."""

    head: FastLinear

    @classmethod
    def of(cls, model: Transformer, is_int8: bool = False) -> Self:
        """Take over a model on a CPU: its layers change, and it must not be used any more."""
        with torch.device("meta"):
            made = cls(model.config)
        products = load_products()
        made.model = model.model
        made.head = FastLinear(model.head_weight, None, products, is_int8)
        made.lm_head = None

        def fast(*layers: nn.Linear) -> FastLinear:
            weights: list[Tensor] = [layer.weight for layer in layers]
            biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
            # A single matrix is not copied.
            weight = torch.cat(weights) if len(weights) > 1 else weights[0]
            return FastLinear(weight, torch.cat(biases) if biases else None, products, is_int8)

        for layer in made.model.layers:
            assert isinstance(layer, Layer)
            layer.input_layernorm = fast_norm(layer.input_layernorm)
            layer.post_attention_layernorm = fast_norm(layer.post_attention_layernorm)
            layer.add_module("self_attn", FastAttention(layer.self_attn, fast))
            if isinstance(layer.mlp, SwigluFeedForward):
                layer.mlp = FastSwiglu(layer.mlp, fast)
            elif isinstance(layer.mlp, GeluFeedForward):
                layer.mlp.add_module("up_proj", fast(layer.mlp.up_proj))
                layer.mlp.add_module("down_proj", fast(layer.mlp.down_proj))
        made.model.norm = fast_norm(made.model.norm)
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
