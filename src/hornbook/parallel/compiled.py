"""Compiling a model for training: each layer by itself, attached from outside for the time of a step.

Layers are alike, so one of them is compiled and all run the same code: 40 layers take no longer to compile than 4. And
what they share, such as the angles of rotary positions, is computed once, before them. Compiled in one piece, a model
computes it again in every layer, since a compiler takes arithmetic to be cheaper than memory.

Evaluation and generation run the model as it is: their rows are of many lengths, and each would be compiled anew.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from hornbook.model.attention import added_masks_by_window, masks_by_window
from hornbook.model.block_masks import block_masks_by_window
from hornbook.model.softmax_attention import exact_products
from hornbook.model.transformer import Decoder, Layer


class CompiledLayers:
    """The layers of a model, or of this process's part of it, compiled when they are first called within `attached`.

    dtype: the type computed in. In bfloat16, a GPU then skips what nobody looks at, and a CPU takes the plain formula
    of attention where rows are short. Making one throws away all that was compiled in this process before: all modules
    are called through one function, of which the compiler keeps a few versions only.
    """

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        torch.compiler.reset()
        self._layers = [module for module in model.modules() if isinstance(module, Layer)]
        self._decoders = [module for module in model.modules() if isinstance(module, Decoder)]
        self._calls = [torch.compile(layer._call_impl, dynamic=False) for layer in self._layers]
        self._make_masks = masks_by_window
        self._settings: Callable[[], AbstractContextManager[None]] = nullcontext
        if device.type == "cpu" and dtype == torch.bfloat16:
            self._make_masks, self._settings = added_masks_by_window, exact_products
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
            with self._settings():
                yield
        finally:
            for layer in self._layers:
                layer._compiled_call_impl = None
            for decoder in self._decoders:
                decoder.make_masks = masks_by_window
