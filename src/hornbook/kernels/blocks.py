"""What is computed in blocks of bfloat16 numbers: the C functions beside this file, as Python calls them."""

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hornbook.kernels.build import load_library


class _MuonMatrix(ctypes.Structure):
    """`struct muon_matrix` of muon.h."""

    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("momentum", ctypes.c_void_p),
        ("n_rows", ctypes.c_long),
        ("n_columns", ctypes.c_long),
        ("keep", ctypes.c_float),
        ("step", ctypes.c_float),
    )


class _Heads(ctypes.Structure):
    """`struct heads` of attention.h."""

    _fields_ = (
        ("numbers", ctypes.c_void_p),
        ("row", ctypes.c_long),
        ("head", ctypes.c_long),
        ("token", ctypes.c_long),
    )


class _Attention(ctypes.Structure):
    """`struct attention` of attention.h."""

    _fields_ = (
        ("n_rows", ctypes.c_long),
        ("n_heads", ctypes.c_long),
        ("n_kv_heads", ctypes.c_long),
        ("n_tokens", ctypes.c_long),
        ("size", ctypes.c_long),
        ("scale", ctypes.c_float),
        ("first_seen", ctypes.c_void_p),
        ("log_sums", ctypes.c_void_p),
        ("threads", ctypes.c_int),
    )


class _CrossEntropy(ctypes.Structure):
    """`struct cross_entropy` of cross_entropy.h."""

    _fields_ = (
        ("n_tokens", ctypes.c_long),
        ("n_words", ctypes.c_long),
        ("size", ctypes.c_long),
        ("hidden", ctypes.c_void_p),
        ("head", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("losses", ctypes.c_void_p),
        ("of_hidden", ctypes.c_void_p),
        ("of_head", ctypes.c_void_p),
        ("threads", ctypes.c_int),
    )


class BlockKernels:
    """The functions, for contiguous tensors on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._muon_step = library.muon_step
        self._muon_step.argtypes = (
            ctypes.c_void_p,
            ctypes.c_long,
            ctypes.c_float,
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_int,
        )
        self._attend_forward, self._attend_backward = library.attend_forward, library.attend_backward
        self._attend_forward.argtypes = (ctypes.c_void_p,) * 5
        self._attend_backward.argtypes = (ctypes.c_void_p,) * 8
        self._cross_entropy = library.cross_entropy
        self.cross_entropy_pays = bool(library.cross_entropy_pays())

    def attend_forward(
        self,
        q_BHTE: Tensor,
        k_BKTE: Tensor,
        v_BKTE: Tensor,
        first_seen_BT: Tensor,
        out_BHTE: Tensor,
        log_sums_BHT: Tensor,
    ) -> None:
        """softmax(Q Kᵀ / √E) V of bfloat16 heads goes to `out`, the logarithms of its sums to `log_sums`, float32.

        first_seen: int32, never falling in a row; a token sees those from there on, up to itself.
        """
        _attend(self._attend_forward, q_BHTE, k_BKTE, first_seen_BT, log_sums_BHT, (q_BHTE, k_BKTE, v_BKTE, out_BHTE))

    def attend_backward(
        self,
        q_BHTE: Tensor,
        k_BKTE: Tensor,
        v_BKTE: Tensor,
        first_seen_BT: Tensor,
        log_sums_BHT: Tensor,
        grad_out_BHTE: Tensor,
        grads: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """The gradients of q, k and v, of their shapes, from that of `out`."""
        heads = (q_BHTE, k_BKTE, v_BKTE, grad_out_BHTE, *grads)
        _attend(self._attend_backward, q_BHTE, k_BKTE, first_seen_BT, log_sums_BHT, heads)

    def cross_entropy(
        self,
        hidden_ND: Tensor,
        head_VD: Tensor,
        labels_N: Tensor,
        weights_N: Tensor,
        losses_N: Tensor,
        grads: tuple[Tensor, Tensor] | None,
    ) -> None:
        """weight * -log softmax(hidden @ head^T)[label] goes to `losses`, and the gradients of their sum to `grads`.

        hidden: bfloat16; labels: int64, in the vocabulary; the others float32, the gradients as hidden and head are.
        """
        (n_tokens, size), n_words = hidden_ND.shape, len(head_VD)
        of_hidden_ND, of_head_VD = grads or (None, None)
        for each, shape, dtype in (
            (hidden_ND, (n_tokens, size), torch.bfloat16),
            (head_VD, (n_words, size), torch.float32),
            (labels_N, (n_tokens,), torch.int64),
            (weights_N, (n_tokens,), torch.float32),
            (losses_N, (n_tokens,), torch.float32),
            (of_hidden_ND, (n_tokens, size), torch.float32),
            (of_head_VD, (n_words, size), torch.float32),
        ):
            if each is not None:
                _check(each, dtype, shape)
        if n_tokens and not 0 <= int(labels_N.min()) <= int(labels_N.max()) < n_words:
            raise ValueError(f"a label is not among the {n_words} words")
        pointers = (
            None if each is None else each.data_ptr()
            for each in (hidden_ND, head_VD, labels_N, weights_N, losses_N, of_hidden_ND, of_head_VD)
        )
        call = _CrossEntropy(n_tokens, n_words, size, *pointers, torch.get_num_threads())
        if self._cross_entropy(ctypes.byref(call)):
            raise MemoryError("no memory for the blocks of a cross entropy")

    def muon_step(
        self,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        momenta: Sequence[Tensor],
        momentum: float,
        coefficients: tuple[float, float, float],
        iterations: int,
        keep: float,
        steps: Sequence[float],
    ) -> None:
        """A step of Muon: momenta and weights of float32 matrices are changed in place.

        weights become keep * weights - step * (the orthogonal direction). Raises MemoryError where there is none.
        """
        for matrix in (*weights, *gradients, *momenta):
            _check(matrix, torch.float32)
        if any(a.shape != b.shape or a.shape != c.shape for a, b, c in zip(weights, gradients, momenta, strict=True)):
            raise ValueError("a matrix, its gradient and its momentum must be of one shape")
        self._step(
            [
                _MuonMatrix(weight.data_ptr(), gradient.data_ptr(), past.data_ptr(), *weight.shape, keep, step)
                for weight, gradient, past, step in zip(weights, gradients, momenta, steps, strict=True)
            ],
            momentum,
            coefficients,
            iterations,
        )

    def orthogonalize(
        self, matrices: Sequence[Tensor], coefficients: tuple[float, float, float], iterations: int
    ) -> None:
        """Each float32 matrix becomes, in place, the orthogonal one that the iterations make of it."""
        for matrix in matrices:
            _check(matrix, torch.float32)
        each = [_MuonMatrix(m.data_ptr(), m.data_ptr(), None, *m.shape, 0.0, -1.0) for m in matrices]
        self._step(each, 0.0, coefficients, iterations)

    def _step(
        self,
        matrices: list[_MuonMatrix],
        momentum: float,
        coefficients: tuple[float, float, float],
        iterations: int,
    ) -> None:
        block = (_MuonMatrix * len(matrices))(*matrices)
        threads = torch.get_num_threads()
        numbers = (ctypes.c_float * 3)(*coefficients)
        if self._muon_step(block, len(block), momentum, numbers, iterations, threads):
            raise MemoryError("no memory for the blocks of a matrix")


def _attend(
    function: Callable[..., int],
    q_BHTE: Tensor,
    k_BKTE: Tensor,
    first_seen_BT: Tensor,
    log_sums_BHT: Tensor,
    heads: tuple[Tensor, ...],
) -> None:
    n_rows, n_heads, n_tokens, size = q_BHTE.shape
    n_kv_heads = k_BKTE.shape[1]
    shapes = {(n_rows, n_heads, n_tokens, size), (n_rows, n_kv_heads, n_tokens, size)}
    is_one_shape = {tuple(each.shape) for each in heads} <= shapes and n_heads % n_kv_heads == 0
    if not is_one_shape:
        raise ValueError(f"shapes that do not belong together: {[tuple(each.shape) for each in heads]}")
    for each in heads:
        if each.dtype != torch.bfloat16 or each.device.type != "cpu" or each.stride(-1) != 1:
            raise TypeError(f"heads must be bfloat16, on the CPU, the last dimension dense, not {each.dtype}")
    _check(first_seen_BT, torch.int32, (n_rows, n_tokens))
    _check(log_sums_BHT, torch.float32, (n_rows, n_heads, n_tokens))
    attention = _Attention(
        n_rows,
        n_heads,
        n_kv_heads,
        n_tokens,
        size,
        size**-0.5,
        first_seen_BT.data_ptr(),
        log_sums_BHT.data_ptr(),
        torch.get_num_threads(),
    )
    described = [_Heads(each.data_ptr(), *each.stride()[:3]) for each in heads]
    if function(ctypes.addressof(attention), *map(ctypes.addressof, described)):
        raise MemoryError("no memory for the blocks of a head")


def _check(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...] | None = None) -> None:
    """C would read whatever stands there."""
    if tensor.dtype != dtype or tensor.device.type != "cpu" or not tensor.is_contiguous():
        what = f"{tensor.dtype}, strides {tensor.stride()}, {tensor.device}"
        raise TypeError(f"must be {dtype}, contiguous and on the CPU, not {what}")
    if shape is not None and tensor.shape != shape:
        raise ValueError(f"shapes that do not belong together: {tuple(tensor.shape)} should be {shape}")


@functools.cache
def load_blocks(*flags: str) -> BlockKernels | None:
    """The functions, built with these flags besides the usual; None where compiler or instructions are missing."""
    library = load_library(Path(__file__).parent, flags)
    return BlockKernels(library) if library is not None and library.blocks_serve() else None


def blocks_note(device: torch.device, dtype: torch.dtype) -> str | None:
    """A sentence where a training could have the functions, but they could not be built; else None."""
    is_for_them = device.type == "cpu" and dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported()
    if not is_for_them or load_blocks() is not None:
        return None
    return (
        "Without C functions, attention, Muon and, with tiles, the loss take longer: no C compiler was found "
        "that builds them (gcc or clang, as cc or by the variable CC)."
    )
