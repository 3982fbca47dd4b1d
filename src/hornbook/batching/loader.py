"""Batches in an order that can be taken up again anywhere, by any number of processes.

The order is a pure function of the data and the seed. In every epoch the documents are shuffled, taken in
blocks, and each block is packed into rows, which are shuffled again. A step takes the next rows_per_step
rows, across the ends of blocks and epochs; with several processes each takes its share of them. So the whole
state is a cursor of three counts (epoch, block, row), which says nothing of processes: a run resumes on
another number of them with the same global batches.

Shuffling sorts by raw 64-bit draws. Those are promised never to change between versions of numpy; a shuffle
is not.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from hornbook.batching.packing import Batch, Piece, Row, cut, fill, padding_fraction, plan_rows
from hornbook.batching.shards import Documents
from hornbook.errors import UserError
from hornbook.runtime import derive_seed, numpy_generator

# Documents that are packed at once. Enough that best fit finds partners, few enough that an order of kinds survives.
_BLOCK_DOCUMENTS = 2048


class Loader:
    """Endless batches for training: `rows_per_step` rows of `row_tokens` tokens a step, over all processes.

    Each pass over the documents takes them in a new order, drawn from the seed; with `first_in_order` the first
    pass takes them as they come, block by block. The rank is this process's place among world_size ones. Raises
    UserError where there are no tokens to train on, or a step has fewer rows than there are processes.
    """

    def __init__(
        self,
        documents: Documents,
        row_tokens: int,
        rows_per_step: int,
        seed: int,
        *,
        pad_id: int,
        first_in_order: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not documents.lengths.any():
            raise UserError("The training data has no tokens. Check the recipe's sources and filters.")
        if rows_per_step < world_size:
            raise UserError(
                f"A step of {rows_per_step} rows cannot be shared by {world_size} processes. "
                "Raise global_batch_tokens, or use fewer processes."
            )
        self._documents = documents
        self._row_tokens = row_tokens
        self._rows_per_step = rows_per_step
        self._seed = seed
        self._first_in_order = first_in_order
        self._pad_id = pad_id
        self._rank = rank
        self._world_size = world_size
        self._epoch = -1
        self._enter(epoch=0, block=0)

    def next_batch(self) -> Batch:
        """This process's share of the next step: a contiguous part of its rows."""
        rows = self._take(self._rows_per_step)
        start = self._rank * len(rows) // self._world_size
        stop = (self._rank + 1) * len(rows) // self._world_size
        return fill(rows[start:stop], self._documents, self._row_tokens, self._pad_id)

    @property
    def padding_fraction(self) -> float:
        """The part of all places in the current block that is padding."""
        return padding_fraction(self._rows, self._row_tokens)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and on what data. Plain numbers and text; the same in every process."""
        return {"epoch": self._epoch, "block": self._block, "row": self._row, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where the state says. Raises UserError where it was taken on other data or in another order.

        The number of processes and the rows of a step may differ from those of the state.
        """
        changes = [
            f"{name} was {state[name]} and is now {value}"
            for name, value in self._identity().items()
            if state[name] != value
        ]
        if changes:
            raise UserError(
                f"The checkpoint stands at a place in other data than this run's: {'; '.join(changes)}. "
                "Set the recipe and the data back to resume, or start a new run."
            )
        self._enter(state["epoch"], state["block"])
        self._row = state["row"]

    def _identity(self) -> dict[str, Any]:
        """All that decides which row is where."""
        return {
            "documents": len(self._documents),
            "fingerprint": self._documents.fingerprint,
            "row_tokens": self._row_tokens,
            "seed": self._seed,
            "first_in_order": self._first_in_order,
            "block_documents": _BLOCK_DOCUMENTS,
        }

    def _take(self, count: int) -> list[Row]:
        """The next `count` rows of the order."""
        taken: list[Row] = []
        while len(taken) < count:
            if self._row == len(self._rows):
                is_last_block = (self._block + 1) * _BLOCK_DOCUMENTS >= len(self._documents)
                self._enter(*((self._epoch + 1, 0) if is_last_block else (self._epoch, self._block + 1)))
            more = self._rows[self._row : self._row + count - len(taken)]
            taken += more
            self._row += len(more)
        return taken

    def _enter(self, epoch: int, block: int) -> None:
        """Stand before the first row of a block."""
        if epoch != self._epoch:
            self._epoch = epoch
            is_in_order = self._first_in_order and epoch == 0
            n_documents = len(self._documents)
            self._order = np.arange(n_documents) if is_in_order else self._shuffled(n_documents, "documents")
        self._block, self._row = block, 0
        members = self._order[block * _BLOCK_DOCUMENTS : (block + 1) * _BLOCK_DOCUMENTS]
        rows = [
            [Piece(int(members[document]), start, length) for document, start, length in row]
            for row in plan_rows(self._documents.lengths[members], self._row_tokens)
        ]
        self._rows = [rows[index] for index in self._shuffled(len(rows), "rows", block)]

    def _shuffled(self, count: int, *purpose: int | str) -> np.ndarray:
        """The numbers below `count` in an order that depends on the seed, the epoch and the purpose alone."""
        draws = numpy_generator("loader", self._seed, self._epoch, *purpose).bit_generator.random_raw(count)
        return np.argsort(draws, kind="stable")


class Stretch:
    """One process's stretch of every row, where several share the tokens of their rows."""

    def __init__(self, source: "WholeBatches", rank: int, n_stretches: int) -> None:
        self._source, self._rank, self._n_stretches = source, rank, n_stretches

    def next_batch(self) -> Batch:
        """Raises UserError where the rows cannot be cut evenly."""
        batch = self._source.next_batch()
        size, rest = divmod(batch.input_ids.shape[1], self._n_stretches)
        if rest:
            raise UserError(
                f"Rows of {batch.input_ids.shape[1]} tokens cannot be cut into {self._n_stretches} stretches."
            )
        return batch.tokens(self._rank * size, (self._rank + 1) * size)

    def state_dict(self) -> dict[str, Any]:
        return self._source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._source.load_state_dict(state)


class WholeBatches(Protocol):
    """A source of batches that are to be cut further."""

    def next_batch(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def evaluation_batches(
    documents: Documents, row_tokens: int, rows_per_batch: int, max_rows: int | None = None, *, pad_id: int
) -> Iterator[tuple[Batch, int]]:
    """Every document once and in order, as (batch, the bytes of raw text that its labels stand for).

    A document that does not fit in the rest of a row starts a new one. Where `max_rows` is given and there are more
    rows, so many of them are taken from everywhere, since documents may stand source after source; of a document
    perhaps only a part. A piece of a document counts for its share of the document's bytes by tokens; over a whole
    document the count is exact. Raises UserError where there are no tokens.
    """
    if not documents.lengths.any():
        raise UserError("The validation data has no tokens. Check the recipe's sources and validation_fraction.")
    if max_rows is None:
        rows = list(_rows_in_order(documents.lengths, row_tokens))
    else:
        # Counted first, and made again: there may be far more of them than are to be held.
        n_rows = sum(1 for _ in _rows_in_order(documents.lengths, row_tokens))
        taken = set(spread_numbers(n_rows, max_rows))
        rows = [row for number, row in enumerate(_rows_in_order(documents.lengths, row_tokens)) if number in taken]
    for start in range(0, len(rows), rows_per_batch):
        part = rows[start : start + rows_per_batch]
        yield fill(part, documents, row_tokens, pad_id), _bytes_of(part, documents)


def spread_numbers(n_items: int, n_wanted: int) -> list[int]:
    """`n_wanted` of the numbers below `n_items`, in order, or all of them where there are no more.

    One of each stretch of equal length, drawn by hash: so of things that stand class after class each class has its
    share, and of things that take turns as well. They are the same ones every time.
    """
    if n_wanted >= n_items:
        return list(range(n_items))
    stretches = [(place * n_items // n_wanted, (place + 1) * n_items // n_wanted) for place in range(n_wanted)]
    return [start + derive_seed("spread", start, stop) % (stop - start) for start, stop in stretches]


def _rows_in_order(lengths: np.ndarray, row_tokens: int) -> Iterator[Row]:
    """Rows that hold the documents in their order; a piece that does not fit starts a new row."""
    row: Row = []
    used = 0
    for document, length in enumerate(lengths.tolist()):
        for piece in cut(document, length, row_tokens):
            if used + piece.length > row_tokens:
                yield row
                row, used = [], 0
            row.append(piece)
            used += piece.length
    if row:
        yield row


def _bytes_of(rows: list[Row], documents: Documents) -> int:
    """The bytes that the labels in these rows stand for, by the rule of `evaluation_batches`."""
    total = 0
    for document, start, length in (piece for row in rows for piece in row):
        n_bytes, n_tokens = int(documents.n_bytes[document]), int(documents.lengths[document])
        # Rounded at both ends alike, so that the pieces of a document add up to its bytes.
        total += n_bytes * (start + length) // n_tokens - n_bytes * start // n_tokens
    return total
