"""Making a step fit in memory: fewer rows at once.

It does not change what is learned. The trainer divides by the count of the global batch, so the sum over its pieces
is the same however many there are.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from hornbook.batching.packing import Batch
from hornbook.errors import RunFailed
from hornbook.run_directory import read_json, write_json

_OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY_MESSAGES)


class MicroBatchSize:
    """How many rows are computed at once. It only ever shrinks.

    What was found to fit is kept in the file `memory`, where one is given, so that the next start does not run out of
    memory again. It holds for this device alone.
    """

    def __init__(self, rows: int, memory: Path | None = None, device: str = "") -> None:
        self.rows, self._memory, self._device = rows, memory, device
        if memory is not None and memory.is_file():
            match read_json(memory):
                case {"device": known, "rows": int(remembered)} if known == device and remembered > 0:
                    self.rows = min(rows, remembered)

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
        if self._memory is not None:
            write_json(self._memory, {"rows": self.rows, "device": self._device})
