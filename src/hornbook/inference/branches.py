"""Several continuations of one text in one row: the text is read once, and each continuation sees it and itself alone.

So the choices of a question cost hardly more than its text. The model knows nothing of it: what it is given stands
where a cache of earlier keys and values does, and holds none.

Shapes: B rows, T tokens of a row, K kv heads, E head_dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Branches:
    """Rows of a text each, and its branches one after the other. A `hornbook.model.attention.KeyValueCache`.

    lengths: of each row, the tokens of its text, and then those of each branch, which may be none.
    """

    def __init__(self, lengths: Sequence[Sequence[int]], device: torch.device) -> None:
        n_tokens = max(map(sum, lengths))
        self._has_branches = any(sum(of_row[1:]) and len(of_row) > 2 for of_row in lengths)
        positions, branches = [], []
        for of_row in lengths:
            places = list(range(of_row[0]))
            members = [0] * of_row[0]
            for number, length in enumerate(of_row[1:], start=1):
                places += range(of_row[0], of_row[0] + length)
                members += [number] * length
            padding = n_tokens - len(places)
            positions.append(places + [0] * padding)
            branches.append(members + [len(of_row)] * padding)
        self._positions_BT = torch.tensor(positions, device=device)
        self._branches_BT = torch.tensor(branches, device=device)

    def position_ids(self, n_new: int) -> Tensor:
        """(B,T): each branch counts on from the text."""
        return self._positions_BT

    def mask(self, n_new: int, window_tokens: int | None = None) -> Tensor | None:
        """(B,1,T,T) bool: a token sees the text and its own branch, up to itself. None where that is plainly causal."""
        if not self._has_branches and (window_tokens is None or window_tokens >= n_new):
            return None
        seen_BT, place_BT = self._branches_BT[:, None, :], self._positions_BT
        is_seen_BTT = (seen_BT == 0) | (seen_BT == self._branches_BT[:, :, None])
        tokens_ago_BTT = place_BT[:, :, None] - place_BT[:, None, :]
        order_T = torch.arange(n_new, device=place_BT.device)
        is_seen_BTT &= order_T[:, None] >= order_T[None, :]
        if window_tokens is not None:
            is_seen_BTT &= tokens_ago_BTT < window_tokens
        return is_seen_BTT[:, None]

    def store(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        return k_BKTE, v_BKTE

    def advance(self, n_new: int) -> None:
        """Nothing is kept for later."""
