"""Compiling a model for training: each layer by itself, attached from outside for the time of a step.

Layers are alike, so one of them is compiled and all run the same code: 40 layers take no longer to compile than 4. And
what they share, such as the angles of rotary positions, is computed once, before them. Compiled in one piece, a model
computes it again in every layer, since a compiler takes arithmetic to be cheaper than memory.

Evaluation and generation run the model as it is: their rows are of many lengths, and each would be compiled anew.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from hornbook.model.attention import masks_by_window
from hornbook.model.block_masks import block_masks_by_window
from hornbook.model.transformer import Decoder, Layer


class CompiledLayers:
    """The layers of a model, or of this process's part of it, compiled when they are first called within `attached`.

    dtype: the type computed in. In bfloat16 on a GPU, attention skips blocks that nobody looks at. Making one throws
    away all that was compiled in this process before: all layers are called through one function, of which the compiler
    keeps a few versions only.
    """

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        torch.compiler.reset()
        self._layers: list[nn.Module] = [module for module in model.modules() if isinstance(module, Layer)]
        self._decoders = [module for module in model.modules() if isinstance(module, Decoder)]
        self._compiled = torch.compile(_called, dynamic=False)
        self._make_masks = masks_by_window
        if device.type == "cuda" and dtype == torch.bfloat16:
            self._make_masks = block_masks_by_window
            # Compiling a layer that is to be computed again runs its attention once as plain code.
            warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within the block the model runs its layers as compiled code."""
        before = [layer.__dict__.get("forward") for layer in self._layers]
        for layer in self._layers:
            layer.forward = partial(self._compiled, layer.forward)
        for decoder in self._decoders:
            decoder.make_masks = self._make_masks
        try:
            yield
        finally:
            for layer, forward in zip(self._layers, before, strict=True):
                del layer.forward
                if forward is not None:  # that of hornbook.parallel.recompute
                    layer.forward = forward
            for decoder in self._decoders:
                decoder.make_masks = masks_by_window


def _called(forward: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
    """What is compiled. Through a function of ours, the compiler also enters what computes a layer again: it skips
    torch's own modules where they are called first."""
    return forward(*arguments)
