"""Counting what processes send each other, at the place where torch hands it to its process groups."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_KINDS = {
    "allgather": "all_gather",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "allreduce": "all_reduce",
    "all_reduce": "all_reduce",
    "broadcast": "broadcast",
    "send": "send",
}


class TrafficCounter(TorchDispatchMode):
    """Within its block, adds up in `bytes` the numbers that this process hands to each kind of exchange.

    An all-gather counts with its result, a reduce-scatter with its input, an all-reduce and a send with their tensor.
    Whole numbers are not counted: what processes tell each other besides the training is made of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace in ("c10d", "_c10d_functional"):
            name = func._schema.name.split("::")[1].strip("_")
            kind = next((kind for start, kind in _KINDS.items() if name.startswith(start)), None)
            if kind is not None:
                self.bytes[kind] += max(_bytes_of(args), _bytes_of(result))
        return result


def _bytes_of(values: Any) -> int:
    """The largest floating-point tensor, or list of them, among the values."""
    if isinstance(values, Tensor):
        return values.nbytes if values.is_floating_point() else 0
    if isinstance(values, list | tuple):
        sizes = [_bytes_of(value) for value in values]
        is_list = isinstance(values, list) and all(isinstance(value, torch.Tensor) for value in values)
        return sum(sizes) if is_list else max(sizes, default=0)
    return 0
