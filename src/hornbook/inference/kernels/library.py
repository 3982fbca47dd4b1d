"""The C functions beside this file, as Python calls them; without a compiler, torch's operations serve."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hornbook.kernels.build import load_library

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float
_FUNCTIONS = {  # the types of their arguments, and of what they return
    "multiply_float32": ((*[_POINTER] * 3, *[_LONG] * 3, _INT), _INT),
    "multiply_bfloat16": ((*[_POINTER] * 3, *[_LONG] * 3, _INT), _INT),
    "multiply_int8": ((*[_POINTER] * 4, *[_LONG] * 3, _INT), _INT),
    "normalise_rms": ((_POINTER, _POINTER, _FLOAT, _POINTER, _LONG, _LONG, _INT), None),
    "gate_silu": ((_POINTER, _POINTER, _LONG, _LONG, _INT), None),
    "read_tokens": ((_POINTER, _LONG, *[_POINTER] * 3, _INT, _POINTER, _LONG, _INT), _INT),
}
TYPES = (torch.float32, torch.bfloat16, torch.int8)
"""What weights may be, in the order of `enum type` in layers.c."""


class Kernels:
    """The functions, for contiguous tensors on the CPU; all vectors are float32."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (arguments, result) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, result
        self._multiply = dict(
            zip(TYPES, (library.multiply_float32, library.multiply_bfloat16, library.multiply_int8), strict=True)
        )
        self._normalise_rms, self._gate_silu = library.normalise_rms, library.gate_silu
        self._read_tokens = library.read_tokens

    def multiply(self, weight_OI: Tensor, scales_O: Tensor | None, vectors: Tensor) -> Tensor:
        """vectors (...,I) times the rows of a matrix: (...,O). weight: float32, bfloat16, or int8 with its scales."""
        _check(vectors)
        n_rows, n_columns = weight_OI.shape
        out = torch.empty((*vectors.shape[:-1], n_rows))
        addresses = [weight_OI.data_ptr(), vectors.data_ptr(), out.data_ptr()]
        if scales_O is not None:
            addresses.insert(1, scales_O.data_ptr())
        n_vectors = vectors.numel() // n_columns
        if self._multiply[weight_OI.dtype](*addresses, n_columns, n_rows, n_vectors, torch.get_num_threads()):
            raise MemoryError
        return out

    def normalise_rms(self, vectors: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        """RMSNorm of vectors (...,D)."""
        _check(vectors)
        out, size = torch.empty_like(vectors), weight_D.numel()
        n_vectors, n_threads = vectors.numel() // size, torch.get_num_threads()
        self._normalise_rms(vectors.data_ptr(), weight_D.data_ptr(), eps, out.data_ptr(), n_vectors, size, n_threads)
        return out

    def gate_silu(self, gates_ups: Tensor) -> Tensor:
        """silu(gate) * up (...,F) of vectors (...,2F) that hold the gates and then the others."""
        _check(gates_ups)
        size = gates_ups.shape[-1] // 2
        out = torch.empty((*gates_ups.shape[:-1], size))
        n_vectors, n_threads = out.numel() // size, torch.get_num_threads()
        self._gate_silu(gates_ups.data_ptr(), out.data_ptr(), n_vectors, size, n_threads)
        return out

    def read_tokens(
        self,
        layers: ctypes.Array[Any],
        texts: ctypes.Structure,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        x_BD: Tensor,
    ) -> None:
        """Let x_BD, one new token of each text, go through all layers, and its keys and values into the cache.

        layers, texts: `struct layer` of each and `struct texts` of layers.c and steps.h. keys, values: the cache of
        each layer, (B,K,columns,E).
        """
        _check(x_BD)
        blocks = [(_POINTER * len(layers))(*(block.data_ptr() for block in part)) for part in (keys, values)]
        cache_type, n_threads = TYPES.index(keys[0].dtype), torch.get_num_threads()
        addresses = [ctypes.addressof(each) for each in (texts, *blocks)]
        if self._read_tokens(
            ctypes.addressof(layers), len(layers), *addresses, cache_type, x_BD.data_ptr(), x_BD.shape[1], n_threads
        ):
            raise MemoryError


def _check(vectors: Tensor) -> None:
    """C would read whatever stands there."""
    if vectors.dtype != torch.float32 or vectors.device.type != "cpu" or not vectors.is_contiguous():
        raise TypeError(f"vectors must be float32, contiguous and on the CPU, not {vectors.dtype}, {vectors.device}")


def load_kernels() -> Kernels | None:
    """The functions; None where there is no compiler."""
    library = load_library(Path(__file__).parent)
    return None if library is None else Kernels(library)
