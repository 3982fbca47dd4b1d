"""The keys and values of past tokens, kept so that a new token does not make the model read everything again.

Each layer has one block of memory, made once, of so many rows, each with room for K kv heads; grouped-query
attention has fewer of them than query heads, and that is its gain. A row holds one text, its first token in the
first column, so rows of every length stand side by side and a text joins or leaves without moving the others.

The rows in use are always the first ones: then the model reads a slice of the block and nothing is gathered.
A text that has ended stays behind them until its row is needed, and a new text that begins like any that is
still there, in use or ended, takes over the keys and values of what they share.

A layer with a sliding window keeps all of its tokens too, and hands out only those that are still seen: that
saves time, not memory.

Shapes: B rows, T new tokens, S old and new tokens, K kv heads, E head_dim.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hornbook.errors import UserError
from hornbook.model.config import ModelConfig
from hornbook.training.memory import free_memory_bytes

_WORTH_SHARING_TOKENS = 4
"""Copying less than this from another row costs as much as reading it again."""

_CACHE_SHARE = 0.9
"""How much of the free memory a cache may take; the rest is for computing."""


class RowCache:
    """A block of rows, of which the first `n_active` are in use.

    n_rows: texts at a time. capacity_tokens: the longest text, new tokens included.
    """

    def __init__(
        self, config: ModelConfig, n_rows: int, capacity_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        # Zeros, because a weight of 0 times whatever lay in the memory before need not be 0.
        shape = _block_shape(config, n_rows, capacity_tokens)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.window_tokens = config.window_tokens
        self.capacity_tokens = capacity_tokens
        self.n_rows, self.n_active = n_rows, 0
        self.texts: list[list[int]] = [[] for _ in range(n_rows)]
        self._left_at = [0] * n_rows
        self._n_left = 0

    def join(self, text: Sequence[int]) -> int:
        """Take the next row, `n_active`, into use for a text; how many of its first tokens are in it already.

        At least one token of the text is left to be read, since what follows the text comes from its last one.
        The row that gives way is the one whose text ended first. There must be a row that is not in use.
        """
        row = self.n_active
        n_shared, source = max((shared_tokens(text[:-1], held), place) for place, held in enumerate(self.texts))
        if n_shared < _WORTH_SHARING_TOKENS:
            n_shared, source = 0, -1
        # Only where no other row is free is the source itself cut down to what is shared.
        free = [place for place in range(row, self.n_rows) if place != source] or [source]
        gives_way = min(free, key=self._left_at.__getitem__)
        if gives_way != row:
            self._copy(row, gives_way, len(self.texts[row]))
            self.texts[gives_way], self._left_at[gives_way] = self.texts[row], self._left_at[row]
            source = gives_way if source == row else source
        if n_shared and source != row:
            self._copy(source, row, n_shared)
        self.texts[row] = list(text[:n_shared])
        self.n_active += 1
        return n_shared

    def shorten(self, row: int, n_tokens: int) -> None:
        """Forget the last tokens of a row's text."""
        if n_tokens:
            del self.texts[row][-n_tokens:]

    def leave(self, row: int) -> None:
        """Take a row out of use; the last row in use gets its number. The text stays as long as there is room."""
        self.n_active -= 1
        self._n_left += 1
        last = self.n_active
        if row != last:
            for block in (*self.keys, *self.values):
                block[[row, last]] = block[[last, row]]
            self.texts[row], self.texts[last] = self.texts[last], self.texts[row]
        self._left_at[last] = self._n_left

    def view(self, first_row: int, new_tokens: Sequence[Sequence[int]]) -> "CacheRows":
        """What the model is given to read these tokens, at least one for each row from `first_row` on."""
        return CacheRows(self, first_row, new_tokens)

    def _copy(self, source: int, target: int, n_tokens: int) -> None:
        for block in (*self.keys, *self.values):
            block[target, :, :n_tokens] = block[source, :, :n_tokens]


class CacheRows:
    """What `hornbook.model.attention.KeyValueCache` asks for, for one reading of new tokens in some rows.

    Rows with fewer new tokens than others are padded on the right. Padding stands where the row's last token
    stands, and what it writes nobody reads.
    """

    def __init__(self, cache: RowCache, first_row: int, new_tokens: Sequence[Sequence[int]]) -> None:
        self._cache, self._new_tokens = cache, new_tokens
        self._rows = slice(first_row, first_row + len(new_tokens))
        self._starts = [len(text) for text in cache.texts[self._rows]]
        counts = [len(tokens) for tokens in new_tokens]
        self._end = max(start + count for start, count in zip(self._starts, counts, strict=True))
        device = cache.keys[0].device
        starts_B1, counts_B1 = torch.tensor([self._starts, counts], device=device)[..., None]
        order_T = torch.arange(max(counts), device=device)
        self._positions_BT = starts_B1 + torch.minimum(order_T, counts_B1 - 1)
        self._columns_BT = torch.where(order_T < counts_B1, self._positions_BT, cache.capacity_tokens)
        self._rows_B1 = torch.arange(self._rows.start, self._rows.stop, device=device)[:, None]

    def position_ids(self, n_new: int) -> Tensor:
        """(B,T): a row's positions count on from its text."""
        return self._positions_BT

    def mask(self, n_new: int, window_tokens: int | None = None) -> Tensor | None:
        """(B,1,T,S) bool: a token sees its row's text up to itself. None where causal attention does that."""
        all_alike = len(set(self._starts)) == 1
        fits_window = window_tokens is None or n_new <= window_tokens
        if all_alike and (n_new == 1 or (self._starts[0] == 0 and fits_window)):
            return None
        first_seen = self._first_seen(window_tokens)
        columns_S = torch.arange(first_seen, self._end, device=self._positions_BT.device)
        new_BT1 = self._positions_BT[..., None]
        sees_BTS = columns_S <= new_BT1
        if window_tokens is not None:
            sees_BTS &= columns_S > new_BT1 - window_tokens
        return sees_BTS[:, None]

    def store(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Keep a layer's new keys and values; those that the new tokens see, each (B,K,S,E)."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[self._rows_B1, :, self._columns_BT] = k_BKTE.transpose(1, 2)
        values[self._rows_B1, :, self._columns_BT] = v_BKTE.transpose(1, 2)
        rows = self._rows
        columns = slice(self._first_seen(self._cache.window_tokens[layer]), self._end)
        return keys[rows, :, columns], values[rows, :, columns]

    def one_token(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Where the keys and values of these rows are and one new token's of each row go, for who stores them himself.

        The keys of each layer, (B,K,columns,E), the values, and the column of each row's new token, (B,).
        """
        keys, values = ([block[self._rows] for block in blocks] for blocks in (self._cache.keys, self._cache.values))
        return keys, values, self._positions_BT[:, 0].contiguous()

    def advance(self, n_new: int) -> None:
        """Count the new tokens as part of their rows' texts; every layer has stored them."""
        for text, tokens in zip(self._cache.texts[self._rows], self._new_tokens, strict=True):
            text.extend(tokens)

    def _first_seen(self, window_tokens: int | None) -> int:
        """The first column that any of the new tokens sees."""
        return 0 if window_tokens is None else max(0, min(self._starts) + 1 - window_tokens)


def check_room(
    config: ModelConfig, n_rows: int, capacity_tokens: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise UserError where the free memory cannot hold a `RowCache` of this size.

    The system may promise more than it has, and end the process without a word when it is used.
    """
    needed = 2 * config.n_layers * math.prod(_block_shape(config, n_rows, capacity_tokens)) * dtype.itemsize
    free = free_memory_bytes(device)
    if free is not None and needed > _CACHE_SHARE * free:
        raise UserError(
            f"--rows {n_rows}: so many answers of {capacity_tokens} tokens, prompts included, take "
            f"{needed / 1e9:,.1f} GB of memory; {free / 1e9:,.1f} GB are free, and some of that is needed to compute. "
            "Name fewer --rows, or a smaller --context."
        )


def _block_shape(config: ModelConfig, n_rows: int, capacity_tokens: int) -> tuple[int, int, int, int]:
    """That of a layer's keys, and of its values. One column more than texts have takes what padding writes."""
    return n_rows, config.n_kv_heads, capacity_tokens + 1, config.head_dim


def shared_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """With how many tokens both begin."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other))
