"""The keys and values of past tokens, kept so that a new token does not make the model read everything again.

Each layer has one block of memory for the whole generation, made once, with room for K kv heads;
grouped-query attention has fewer of them than query heads, and that is its gain. Prompts of different lengths
share a batch by padding the shorter ones on the left: then all rows write their next token into the same
column, and a row's own text is what stands right of its padding. A layer with a sliding window keeps all of its
tokens too, and hands out only those that are still seen: that saves time, not memory.

Shapes: B rows, T new tokens, S old and new tokens, K kv heads, E head_dim.
"""

import torch
from torch import Tensor

from hornbook.model.config import ModelConfig


class PaddedCache:
    """What `hornbook.model.attention.KeyValueCache` asks for, for rows that are padded on the left.

    padding_tokens: for each row, how many of its first columns are padding.
    capacity_tokens: columns, padding and new tokens counted.
    """

    def __init__(
        self,
        config: ModelConfig,
        padding_tokens: list[int],
        capacity_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (len(padding_tokens), config.n_kv_heads, capacity_tokens, config.head_dim)
        self._keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self._values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self._window_tokens = config.window_tokens
        self._padding_B = torch.tensor(padding_tokens, device=device)
        self._is_padded = any(padding_tokens)
        self._length = 0

    def position_ids(self, n_new: int) -> Tensor:
        """(B,T): a row's positions count from the end of its padding."""
        columns_T = torch.arange(self._length, self._length + n_new, device=self._padding_B.device)
        return (columns_T - self._padding_B[:, None]).clamp_min(0)

    def mask(self, n_new: int, window_tokens: int | None = None) -> Tensor | None:
        """(B,1,T,S) bool: a token sees its row's text up to itself. None where causal attention does that."""
        fits_window = window_tokens is None or n_new <= window_tokens
        if not self._is_padded and (n_new == 1 or (self._length == 0 and fits_window)):
            return None
        end = self._length + n_new
        columns_S = torch.arange(self._first_seen(window_tokens), end, device=self._padding_B.device)
        new_T1 = columns_S[-n_new:, None]
        is_text_B1S = columns_S >= self._padding_B[:, None, None]
        # Padding sees itself, so that its softmax is not empty; nobody reads what comes of it.
        sees_BTS = (columns_S <= new_T1) & is_text_B1S | (columns_S == new_T1)
        if window_tokens is not None:
            sees_BTS = sees_BTS & (columns_S > new_T1 - window_tokens)
        return sees_BTS[:, None]

    def store(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Keep a layer's new keys and values; those that the new tokens see, each (B,K,S,E)."""
        n_new = k_BKTE.shape[2]
        end = self._length + n_new
        self._keys[layer][:, :, self._length : end] = k_BKTE
        self._values[layer][:, :, self._length : end] = v_BKTE
        start = self._first_seen(self._window_tokens[layer])
        return self._keys[layer][:, :, start:end], self._values[layer][:, :, start:end]

    def advance(self, n_new: int) -> None:
        """Count `n_new` tokens as old; every layer has stored them."""
        self._length += n_new

    def _first_seen(self, window_tokens: int | None) -> int:
        """The first column that the first of the new tokens sees."""
        return 0 if window_tokens is None else max(0, self._length + 1 - window_tokens)

    def keep_rows(self, rows: list[int]) -> None:
        """Forget all rows but these."""
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]
        self._padding_B = self._padding_B[rows]
