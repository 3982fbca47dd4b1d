"""A model for use alone: its weights as int8 or as they are, and what stands between the products in few operations.

To write a token, reading the weights takes so little time that the rest shows. So products of the same vectors are
made in one, and a step of one new token of each text takes one call for all layers. The vectors between are float32,
also where weights and cache are bfloat16: what takes the time is reading these. Only where torch multiplies many
vectors at once are they bfloat16 too within a layer.

Shapes: as in `hornbook.model.attention`, with N all heads, F the width within a feed-forward.
"""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hornbook.inference.cache import CacheRows
from hornbook.inference.fast_layers import FastLayers
from hornbook.inference.fast_linear import FastLinear
from hornbook.inference.kernels.library import Kernels, load_kernels
from hornbook.model.attention import Attention, KeyValueCache, attend
from hornbook.model.feed_forward import GeluFeedForward, SwigluFeedForward
from hornbook.model.normalization import RMSNorm
from hornbook.model.rotary import rotate
from hornbook.model.transformer import Layer, Transformer


class FastEmbedding(nn.Module):
    """A lookup in weights of any type, as float32."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight).float()


class FastRMSNorm(nn.Module):
    """`hornbook.model.normalization.RMSNorm` in one operation."""

    def __init__(self, norm: RMSNorm, kernels: Kernels) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().float(), requires_grad=False)
        self.eps, self._kernels = norm.eps, kernels

    def forward(self, x: Tensor) -> Tensor:
        return self._kernels.normalise_rms(x.float().contiguous(), self.weight, self.eps).to(x.dtype)


def fast_norm(norm: nn.Module, kernels: Kernels | None) -> nn.Module:
    """The faster norm where there is one."""
    return FastRMSNorm(norm, kernels) if isinstance(norm, RMSNorm) and kernels is not None else norm


class FastAttention(nn.Module):
    """`hornbook.model.attention.Attention` with its three first products in one; queries and keys turn at once.

    dtype: that of keys and values, in the cache or without one.
    """

    def __init__(
        self, attention: Attention, fast: Callable[..., FastLinear], kernels: Kernels | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.layer, self.head_dim, self._dtype = attention.layer, attention.head_dim, dtype
        first = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.n_heads, self.n_kv_heads, _ = (linear.out_features // self.head_dim for linear in first)
        self.qkv_proj, self.o_proj = fast(*first), fast(attention.o_proj)
        self.q_norm, self.k_norm = (
            None if norm is None else fast_norm(norm, kernels) for norm in (attention.q_norm, attention.k_norm)
        )

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask_B1TS: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        heads_BTX = self.qkv_proj(x_BTD.to(self.qkv_proj.computes_in(x_BTD)))
        heads_BNTE = heads_BTX.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        qk_BNTE, v_BKTE = heads_BNTE.split((self.n_heads + self.n_kv_heads, self.n_kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q_BHTE, k_BKTE = qk_BNTE.split((self.n_heads, self.n_kv_heads), dim=1)
            qk_BNTE = torch.cat((self.q_norm(q_BHTE), self.k_norm(k_BKTE)), dim=1)
        if rotary is not None:
            qk_BNTE = rotate(qk_BNTE, *rotary)
        q_BHTE, k_BKTE = qk_BNTE.to(self._dtype).split((self.n_heads, self.n_kv_heads), dim=1)
        v_BKTE = v_BKTE.to(self._dtype)
        if cache is not None:
            k_BKTE, v_BKTE = cache.store(self.layer, k_BKTE, v_BKTE)
        attended_BHTE = attend(q_BHTE, k_BKTE, v_BKTE, mask_B1TS)
        return self.o_proj(attended_BHTE.transpose(1, 2).flatten(2))


class FastSwiglu(nn.Module):
    """`hornbook.model.feed_forward.SwigluFeedForward` with its two first products in one."""

    def __init__(
        self, feed_forward: SwigluFeedForward, fast: Callable[..., FastLinear], kernels: Kernels | None
    ) -> None:
        super().__init__()
        self.gate_up_proj = fast(feed_forward.gate_proj, feed_forward.up_proj)
        self.down_proj = fast(feed_forward.down_proj)
        self._kernels = kernels

    def forward(self, x_BTD: Tensor) -> Tensor:
        gates_ups_BTF = self.gate_up_proj(x_BTD.to(self.gate_up_proj.computes_in(x_BTD)))
        if self._kernels is not None and gates_ups_BTF.dtype == torch.float32:
            return self.down_proj(self._kernels.gate_silu(gates_ups_BTF))
        gate, up = gates_ups_BTF.chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class FastTransformer(Transformer):
    """The same model for use alone. Its embeddings, a lookup, stay as they are."""

    head: FastLinear
    layers_at_once: FastLayers | None

    @classmethod
    def of(cls, model: Transformer, is_int8: bool = False) -> Self:
        """Take over a model on a CPU: its layers change, and it must not be used any more."""
        with torch.device("meta"):
            made = cls(model.config)
        kernels = load_kernels()
        made.model = model.model
        made.head = FastLinear(model.head_weight, None, kernels, is_int8)
        made.lm_head = None
        dtype = model.model.embed_tokens.weight.dtype

        def fast(*layers: nn.Linear) -> FastLinear:
            weights: list[Tensor] = [layer.weight for layer in layers]
            biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
            # A single matrix is not copied.
            weight = torch.cat(weights) if len(weights) > 1 else weights[0]
            return FastLinear(weight, torch.cat(biases) if biases else None, kernels, is_int8)

        made.model.add_module("embed_tokens", FastEmbedding(made.model.embed_tokens))
        if made.model.embed_positions is not None:
            made.model.add_module("embed_positions", FastEmbedding(made.model.embed_positions))
        for layer in made.model.layers:
            assert isinstance(layer, Layer)
            layer.input_layernorm = fast_norm(layer.input_layernorm, kernels)
            layer.post_attention_layernorm = fast_norm(layer.post_attention_layernorm, kernels)
            layer.add_module("self_attn", FastAttention(layer.self_attn, fast, kernels, dtype))
            if isinstance(layer.mlp, SwigluFeedForward):
                layer.mlp = FastSwiglu(layer.mlp, fast, kernels)
            elif isinstance(layer.mlp, GeluFeedForward):
                layer.mlp.add_module("up_proj", fast(layer.mlp.up_proj))
                layer.mlp.add_module("down_proj", fast(layer.mlp.down_proj))
        made.model.norm = fast_norm(made.model.norm, kernels)
        windows = model.config.window_tokens
        made.layers_at_once = None if kernels is None else FastLayers(made.model.layers, windows, kernels)
        return made

    def forward(
        self,
        input_ids_BT: Tensor,
        position_ids_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """As the plain model; one new token of each row of a cache goes through all layers at once."""
        if self.layers_at_once is None or not isinstance(cache, CacheRows) or input_ids_BT.shape[1] > 1:
            return super().forward(input_ids_BT, position_ids_BT, document_ids_BT, cache)
        x_BTD, rotary = self.model.embedded(input_ids_BT, cache.position_ids(1))
        self.layers_at_once.read(x_BTD[:, 0], cache, rotary)
        cache.advance(1)
        return self.model.norm(x_BTD)

    @property
    def is_fast(self) -> bool:
        """Whether the functions of kernels/ are there, and with them the gain of int8."""
        return self.head.is_fast

    @property
    def head_weight(self) -> Tensor:
        """(V,D): the weights of the scores, as they count."""
        weight, scales = self.head.weight, self.head.scales
        return weight if scales is None else weight * scales[:, None]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (...,V) of the next token from the vectors (...,D)."""
        return self.head(hidden)
