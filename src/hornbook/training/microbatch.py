"""Making a step fit in memory: fewer rows at once, or activations computed twice.

Neither changes what is learned. The trainer divides by the count of the global batch, so the sum over its
pieces is the same however many there are; and recomputed activations are the same activations.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hornbook.batching.packing import Batch
from hornbook.errors import RunFailed

_OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY_MESSAGES)


class MicroBatchSize:
    """How many rows are computed at once. It only ever shrinks, and what was found to fit is kept."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def split(self, batch: Batch) -> Iterator[Batch]:
        """The batch in pieces of that many rows; the last may have fewer."""
        for start in range(0, batch.n_rows, self.rows):
            yield batch.rows(start, min(start + self.rows, batch.n_rows))

    def halve(self, batch_rows: int) -> None:
        """Take half as many rows of a batch of `batch_rows`. Raises RunFailed where it was one already."""
        self.rows = min(self.rows, batch_rows)
        if self.rows == 1:
            raise RunFailed(
                "A single row does not fit in memory. Make the rows shorter (row_tokens), compute the "
                'activations again in the backward pass (recompute = "full"), or choose a smaller model.'
            )
        self.rows = (self.rows + 1) // 2


@contextmanager
def recomputed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block, keep only the inputs of each layer, and compute the rest again in the backward pass.

    Attached from outside: the layers do not know, and their parameters keep their names.
    """
    attached = list(layers)
    for layer in attached:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in attached:
            del layer.forward
