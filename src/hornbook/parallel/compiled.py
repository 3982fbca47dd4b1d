"""Compiling a model for training: each layer by itself, attached from outside for the time of a step.

Layers are alike, so one of them is compiled and all run the same code: 40 layers take no longer to compile than 4. And
what they share, such as the angles of rotary positions, is computed once, before them. Compiled in one piece, a model
computes it again in every layer, since a compiler takes arithmetic to be cheaper than memory.

Evaluation and generation run the model as it is: their rows are of many lengths, and each would be compiled anew.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hornbook.kernels.blocks import load_blocks
from hornbook.model.attention import first_seen_by_window, masks_by_window
from hornbook.model.block_masks import block_masks_by_window
from hornbook.model.transformer import Decoder, Layer


class CompiledLayers:
    """The layers of a model, or of this process's part of it, compiled when they are first called within `attached`.

    dtype: the type computed in. In bfloat16 attention skips what nobody looks at, on a GPU and on a CPU that has what
    it takes. Making one throws away all that was compiled in this process before: all modules
    are called through one function, of which the compiler keeps a few versions only.
    """

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        torch.compiler.reset()
        self._layers = [module for module in model.modules() if isinstance(module, Layer)]
        self._decoders = [module for module in model.modules() if isinstance(module, Decoder)]
        self._calls = [torch.compile(layer._call_impl, dynamic=False) for layer in self._layers]
        self._make_masks = masks_by_window
        if device.type == "cpu" and dtype == torch.bfloat16 and load_blocks() is not None:
            self._make_masks = first_seen_by_window
        if device.type == "cuda" and dtype == torch.bfloat16:
            self._make_masks = block_masks_by_window
            # Compiling a layer that is to be computed again runs its attention once as plain code.
            warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within the block the model runs its layers as compiled code."""
        for layer, call in zip(self._layers, self._calls, strict=True):
            layer._compiled_call_impl = call
        for decoder in self._decoders:
            decoder.make_masks = self._make_masks
        try:
            yield
        finally:
            for layer in self._layers:
                layer._compiled_call_impl = None
            for decoder in self._decoders:
                decoder.make_masks = masks_by_window
