"""All layers of a model in one call, for a step of one new token of each text: what kernels/layers.c is told of them.

Shapes: B texts, D d_model, K kv heads, E head_dim.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hornbook.inference.cache import CacheRows
from hornbook.inference.fast_linear import FastLinear
from hornbook.inference.kernels.library import TYPES, Kernels

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
_NO_WINDOW = 2**62


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _POINTER), ("bias", _POINTER), ("eps", ctypes.c_float))


class _Attention(ctypes.Structure):
    _fields_ = (
        *((name, _LONG) for name in ("n_heads", "n_kv_heads", "head_dim", "window")),
        ("q_norm", _Norm),
        ("k_norm", _Norm),
    )


class _Texts(ctypes.Structure):
    _fields_ = (
        *((name, _LONG) for name in ("n_texts", "text_stride", "head_stride")),
        *((name, _POINTER) for name in ("positions", "cosines", "sines")),
    )


class _Matrix(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("weights", "scales", "bias")),
        *((name, _LONG) for name in ("n_rows", "n_columns")),
        ("type", _INT),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("before_attention", "before_feed_forward")),
        ("attention", _Attention),
        *((name, _Matrix) for name in ("qkv", "out", "up", "down")),
        ("is_gated", _INT),
    )


class FastLayers:
    """The layers of a `FastTransformer`, whose weights must stay where they are."""

    def __init__(self, layers: nn.ModuleList, windows: Sequence[int | None], kernels: Kernels) -> None:
        self._kernels = kernels
        self._kept: list[Tensor] = []
        described = [self._layer(layer, window) for layer, window in zip(layers, windows, strict=True)]
        self._layers = (_Layer * len(layers))(*described)

    def read(self, x_BD: Tensor, cache: CacheRows, rotary: tuple[Tensor, Tensor] | None) -> None:
        """One new token of each text of the cache: x_BD, float32, becomes what comes out of the last layer.

        rotary: cosines and sines of its position, B times E/2 of each.
        """
        keys, values, positions_B = cache.one_token()
        cosines, sines = (None, None) if rotary is None else (angles.data_ptr() for angles in rotary)
        strides = keys[0].stride()
        texts = _Texts(len(x_BD), strides[0], strides[1], positions_B.data_ptr(), cosines, sines)
        self._kernels.read_tokens(self._layers, texts, keys, values, x_BD)

    def _layer(self, layer: Any, window_tokens: int | None) -> _Layer:
        """layer: a `Layer` whose parts were made fast, which its own type does not tell."""
        attention, feed_forward = layer.self_attn, layer.mlp
        is_gated = hasattr(feed_forward, "gate_up_proj")
        shape = (attention.n_heads, attention.n_kv_heads, attention.head_dim, window_tokens or _NO_WINDOW)
        return _Layer(
            self._norm(layer.input_layernorm),
            self._norm(layer.post_attention_layernorm),
            _Attention(*shape, self._norm(attention.q_norm), self._norm(attention.k_norm)),
            self._matrix(attention.qkv_proj),
            self._matrix(attention.o_proj),
            self._matrix(feed_forward.gate_up_proj if is_gated else feed_forward.up_proj),
            self._matrix(feed_forward.down_proj),
            is_gated,
        )

    def _norm(self, norm: Any) -> _Norm:
        if norm is None:
            return _Norm()
        return _Norm(self._floats(norm.weight), self._floats(getattr(norm, "bias", None)), norm.eps)

    def _matrix(self, linear: FastLinear) -> _Matrix:
        weight = linear.weight.detach()
        self._kept.append(weight)
        scales, bias = self._floats(linear.scales), self._floats(linear.bias)
        return _Matrix(weight.data_ptr(), scales, bias, *weight.shape, TYPES.index(weight.dtype))

    def _floats(self, numbers: Tensor | None) -> int | None:
        """Where these numbers are as float32; they are kept."""
        if numbers is None:
            return None
        self._kept.append(numbers.detach().to(torch.float32).contiguous())
        return self._kept[-1].data_ptr()
