"""How large the numbers are that layers hand on: the first sign of a training that will not stay finite."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn


def activation_rms(layers: Sequence[nn.Module], compute: Callable[[], object]) -> dict[str, float]:
    """The root mean square of what the first, the middle and the last layer give while `compute` runs the model.

    Names count layers from 1: {"layer_1": 1.1, "layer_2": 1.6, "layer_4": 2.9}.
    """
    seen: dict[int, Tensor] = {}

    def note(index: int) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: object, output: Tensor) -> None:
            seen[index] = output.detach().float().square().mean().sqrt()

        return hook

    with ExitStack() as stack:
        for index in sorted({0, len(layers) // 2, len(layers) - 1}):
            stack.callback(layers[index].register_forward_hook(note(index)).remove)
        compute()
    values = torch.stack(list(seen.values())).tolist() if seen else []
    return {f"layer_{index + 1}": value for index, value in zip(seen, values, strict=True)}
