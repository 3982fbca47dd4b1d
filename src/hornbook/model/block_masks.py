"""Masks for a GPU: of the table of who sees whom, blocks that nobody sees are not computed at all (FlexAttention).

With them the fused kernel for any mask takes about as long as the one for plainly causal rows, and less where a row
holds several documents, since a document's tokens then look at few others (Dong et al. 2024, arXiv 2412.05496). Only
compiled code knows that kernel.
"""

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from hornbook.model.attention import Mask, masks_by_window
from hornbook.model.config import ModelConfig

_BLOCK_TOKENS = 128
_LEAST_HEAD_DIM = 16
"""The kernel has none for narrower heads."""


def block_masks_by_window(
    config: ModelConfig, n_tokens: int, device: torch.device, document_ids_BT: Tensor | None
) -> dict[int | None, Mask | None]:
    """As `masks_by_window`, in blocks, for rows of several documents whose length is a multiple of a block's."""
    if document_ids_BT is None or n_tokens % _BLOCK_TOKENS or config.head_dim < _LEAST_HEAD_DIM:
        return masks_by_window(config, n_tokens, device, document_ids_BT)
    windows = dict.fromkeys(config.window_tokens)
    return {window_tokens: _block_mask(document_ids_BT, window_tokens) for window_tokens in windows}


def _block_mask(document_ids_BT: Tensor, window_tokens: int | None) -> BlockMask:
    n_rows, n_tokens = document_ids_BT.shape

    def is_seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (query >= key) & (document_ids_BT[row, query] == document_ids_BT[row, key])
        return seen if window_tokens is None else seen & (query - key < window_tokens)

    device = document_ids_BT.device
    return create_block_mask(is_seen, n_rows, None, n_tokens, n_tokens, device=device, BLOCK_SIZE=_BLOCK_TOKENS)
