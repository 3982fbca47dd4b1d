"""Documents to rows: several short ones share a row, and none sees another.

A row that holds one document and padding wastes most of the work of a step. So documents are packed, and
three things keep them apart: positions restart at each, the attention mask is made from `document_ids`, and
no label crosses from one to the next. A document that fits into a row is never cut. A longer one is cut into
pieces of a whole row each and a rest; every piece starts at position 0 and sees nothing of the piece before,
but its last token is still asked for the first of the next.

Shapes: B rows, T tokens of a row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from hornbook.batching.shards import Documents

IGNORE_INDEX = -100


@dataclass(frozen=True)
class Batch:
    """Rows of tokens and what is to be predicted at each. All are (B,T) int64, the weights float32.

    labels[b, t] is the token to be predicted at t: the next one of the same document, or IGNORE_INDEX where
    there is none or it is not to be learned. document_ids count the documents of a row from 0; its padding
    has an id of its own.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    document_ids: Tensor
    weights: Tensor | None = None

    @property
    def n_rows(self) -> int:
        return self.input_ids.shape[0]

    def rows(self, start: int, stop: int) -> Self:
        """The rows from `start` up to, not including, `stop`: views, not copies."""
        return self._with_each(lambda tensor: tensor[start:stop])

    def tokens(self, start: int, stop: int) -> Self:
        """The tokens of each row from `start` up to, not including, `stop`: views, not copies."""
        return self._with_each(lambda tensor: tensor[:, start:stop])

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        return self._with_each(lambda tensor: tensor.to(device, non_blocking=True))

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


class Piece(NamedTuple):
    """Tokens start to start + length of one document, as they stand in a row."""

    document: int
    start: int
    length: int


Row = list[Piece]


def cut(document: int, length: int, row_tokens: int) -> Iterator[Piece]:
    """The pieces of one document, none longer than a row, in order: one piece for a document that fits."""
    for start in range(0, length, row_tokens):
        yield Piece(document, start, min(row_tokens, length - start))


def plan_rows(lengths: np.ndarray, row_tokens: int) -> list[Row]:
    """Pack documents of these lengths into rows, every token exactly once.

    Best fit decreasing: the longest piece first, each into the row where it leaves the least room (Johnson et
    al. 1974, "Worst-case performance bounds for simple one-dimensional packing algorithms"). Needs at most
    11/9 of the fewest rows possible, and in practice hardly more than them. The same lengths always give the
    same rows.
    """
    pieces = [piece for document, length in enumerate(lengths.tolist()) for piece in cut(document, length, row_tokens)]
    pieces.sort(key=lambda piece: piece.length, reverse=True)
    rows: list[Row] = []
    rows_by_room: list[list[int]] = [[] for _ in range(row_tokens + 1)]
    rooms = 0  # bit n is set where some row has room for exactly n more tokens
    for piece in pieces:
        wide_enough = rooms >> piece.length
        if wide_enough:
            lowest_bit = wide_enough & -wide_enough
            room = piece.length + lowest_bit.bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms ^= 1 << room
        else:
            room = row_tokens
            row = len(rows)
            rows.append([])
        rows[row].append(piece)
        room -= piece.length
        if room:
            rows_by_room[room].append(row)
            rooms |= 1 << room
    return rows


def padding_fraction(rows: Sequence[Row], row_tokens: int) -> float:
    """The part of all places in these rows that holds no token."""
    return 1 - sum(piece.length for row in rows for piece in row) / (len(rows) * row_tokens)


def fill(rows: Sequence[Row], documents: Documents, row_tokens: int, pad_id: int) -> Batch:
    """The batch (B = len(rows), T = row_tokens) that a plan stands for."""
    shape = (len(rows), row_tokens)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    position_ids = np.empty(shape, dtype=np.int64)
    document_ids = np.empty(shape, dtype=np.int64)
    count = np.arange(row_tokens)
    for index, row in enumerate(rows):
        at = 0
        for place, (document, start, length) in enumerate(row):
            stop = start + length
            # One token more than the piece: the label of its last one. A document's own last token has none.
            ids = documents.tokens(document)[start : stop + 1].astype(np.int64)
            targets = ids[1:]
            mask = documents.loss_mask(document)
            if mask is not None:
                targets = np.where(mask[start + 1 : stop + 1], targets, IGNORE_INDEX)
            input_ids[index, at : at + length] = ids[:length]
            labels[index, at : at + len(targets)] = targets
            position_ids[index, at : at + length] = count[:length]
            document_ids[index, at : at + length] = place
            at += length
        # Padding is one more document, so that it looks at itself alone and no softmax is empty.
        position_ids[index, at:] = count[: row_tokens - at]
        document_ids[index, at:] = len(row)
    return Batch(*map(torch.from_numpy, (input_ids, labels, position_ids, document_ids)))
