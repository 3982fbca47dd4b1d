"""Attention: every token looks back at the tokens before it and takes from each what it needs.

`reference_attention` writes the computation out, one line for each step of the formula. `fused_attention` is
torch's kernel for it, which never holds the T × T table of weights in memory. The tests hold all that there are
to the first, and `attend` takes the fastest one.

One head count decides the kind: n_kv_heads = n_heads is multi-head attention, n_kv_heads = 1 is multi-query
(Shazeer, arXiv 1911.02150), and anything between is grouped-query (Ainslie et al., arXiv 2305.13245).

Shapes: B rows, T tokens of a row, S tokens that are looked at, D d_model, H heads, K kv heads, E head_dim.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from hornbook.model.block_attention import (
    attention_in_blocks,
    first_seen_of_documents,
    mask_of_first_seen,
    trains_in_blocks,
)
from hornbook.model.config import ModelConfig
from hornbook.model.normalization import make_norm
from hornbook.model.rotary import rotate

Mask = Tensor | BlockMask
"""Which of S tokens each of T may look at: (B,1,T,S) bool, or in another form for a kernel of its own: in blocks
(hornbook.model.block_masks), or (B,T) int32, the first that each may look at (hornbook.model.block_attention)."""


class KeyValueCache(Protocol):
    """What the model needs of a cache of past keys and values (hornbook.inference.cache), or of what stands for one."""

    def position_ids(self, n_new: int) -> Tensor:
        """The positions (B, n_new) of the next `n_new` tokens of each row."""

    def mask(self, n_new: int, window_tokens: int | None = None) -> Tensor | None:
        """(B,1,n_new,S) bool: which of the S tokens that `store` returns each new one may look at. None: causal.

        window_tokens: how many tokens a layer sees, the token itself included; None: all.
        """

    def store(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new keys and values of a layer, and return those that its new tokens look at, (B,K,S,E)."""

    def advance(self, n_new: int) -> None:
        """Count the `n_new` tokens, whose keys and values every layer has now stored, as old."""


def causal_mask(n_tokens: int, device: torch.device, window_tokens: int | None = None) -> Tensor:
    """(1,1,T,T) bool: may token t look at token s? Only at those before it, and itself.

    With a sliding window, these are the last `window_tokens`, itself included (Mistral, arXiv 2310.06825).
    """
    order_T = torch.arange(n_tokens, device=device)
    tokens_ago_TT = order_T[:, None] - order_T[None, :]
    is_seen_TT = tokens_ago_TT >= 0
    if window_tokens is not None:
        is_seen_TT &= tokens_ago_TT < window_tokens
    return is_seen_TT[None, None]


def document_mask(document_ids_BT: Tensor, window_tokens: int | None = None) -> Tensor:
    """(B,1,T,T) bool: the same, and only at tokens of its own document.

    Padding counts as a document of its own. So every token may look at least at itself, and no softmax is
    empty.
    """
    same_document_B1TT = document_ids_BT[:, None, :, None] == document_ids_BT[:, None, None, :]
    return causal_mask(document_ids_BT.shape[1], document_ids_BT.device, window_tokens) & same_document_B1TT


def masks_by_window(
    config: ModelConfig, n_tokens: int, device: torch.device, document_ids_BT: Tensor | None
) -> dict[int | None, Mask | None]:
    """The mask of each kind of layer that the model has, for whole rows: made once, used by all of its layers.

    None stands for plainly causal: no documents, and no window that the row is longer than. Where training goes block
    by block, the mask is the first token that each may look at.
    """
    in_blocks = trains_in_blocks(device, n_tokens)
    if in_blocks and document_ids_BT is None:
        document_ids_BT = torch.zeros(1, n_tokens, dtype=torch.int64, device=device)
    masks: dict[int | None, Mask | None] = {}
    for window_tokens in dict.fromkeys(config.window_tokens):
        if document_ids_BT is not None:
            make = first_seen_of_documents if in_blocks else document_mask
            masks[window_tokens] = make(document_ids_BT, window_tokens)
        elif window_tokens is None or window_tokens >= n_tokens:
            masks[window_tokens] = None
        else:
            masks[window_tokens] = causal_mask(n_tokens, device, window_tokens)
    return masks


def reference_attention(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask_B1TS: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √head_dim) V: equation 1 of Vaswani et al., arXiv 1706.03762."""
    heads_per_kv_head = q_BHTE.shape[1] // k_BKSE.shape[1]
    k_BHSE = k_BKSE.repeat_interleave(heads_per_kv_head, dim=1)
    v_BHSE = v_BKSE.repeat_interleave(heads_per_kv_head, dim=1)
    scores_BHTS = (q_BHTE @ k_BHSE.transpose(-2, -1)).float() / q_BHTE.shape[-1] ** 0.5
    visible_scores_BHTS = scores_BHTS.masked_fill(~mask_B1TS, float("-inf"))
    weights_BHTS = visible_scores_BHTS.softmax(dim=-1).to(v_BHSE.dtype)
    return weights_BHTS @ v_BHSE


def fused_attention(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask_B1TS: Tensor | None) -> Tensor:
    """The same by torch's fused kernel.

    No mask means causal, and is for T = S or T = 1: the queries are all tokens, or the last one alone.
    """
    return F.scaled_dot_product_attention(
        q_BHTE,
        k_BKSE,
        v_BKSE,
        attn_mask=mask_B1TS,
        # A single query is the last token, which may look at everything.
        is_causal=mask_B1TS is None and q_BHTE.shape[2] > 1,
        enable_gqa=q_BHTE.shape[1] != k_BKSE.shape[1],
    )


def attend(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask_B1TS: Mask | None) -> Tensor:
    """The fastest of all, decided from the shapes, the device and the mask's form. No mask means causal."""
    if isinstance(mask_B1TS, BlockMask):
        is_grouped = q_BHTE.shape[1] != k_BKSE.shape[1]
        attended: Tensor = flex_attention(q_BHTE, k_BKSE, v_BKSE, block_mask=mask_B1TS, enable_gqa=is_grouped)
        return attended
    if mask_B1TS is not None and mask_B1TS.dtype == torch.int32:
        if q_BHTE.dtype == torch.bfloat16:
            return attention_in_blocks(q_BHTE, k_BKSE, v_BKSE, mask_B1TS)
        mask_B1TS = mask_of_first_seen(mask_B1TS)
    return fused_attention(q_BHTE, k_BKSE, v_BKSE, mask_B1TS)


class Attention(nn.Module):
    """The projections around the formula: x (B,T,D) → x (B,T,D)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        query_width = config.n_heads * config.head_dim
        key_width = config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.d_model, query_width, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.d_model, key_width, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.d_model, key_width, bias=config.attention_bias)
        self.o_proj = nn.Linear(query_width, config.d_model, bias=config.attention_bias)
        self.q_norm = make_norm(config, config.head_dim) if config.qk_norm else None
        self.k_norm = make_norm(config, config.head_dim) if config.qk_norm else None

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask_B1TS: Mask | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        q_BHTE = self._split_heads(self.q_proj(x_BTD), self.q_norm)
        k_BKTE = self._split_heads(self.k_proj(x_BTD), self.k_norm)
        v_BKTE = self._split_heads(self.v_proj(x_BTD), None)
        if rotary is not None:
            q_BHTE = rotate(q_BHTE, *rotary)
            k_BKTE = rotate(k_BKTE, *rotary)
        if cache is not None:
            k_BKTE, v_BKTE = cache.store(self.layer, k_BKTE, v_BKTE)
        heads_BHTE = attend(q_BHTE, k_BKTE, v_BKTE, mask_B1TS)
        return self.o_proj(heads_BHTE.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """(B,T,N*E) → (B,N,T,E), each head normalised by itself where the model does so."""
        x_BTNE = x.unflatten(-1, (-1, self.head_dim))
        return (x_BTNE if norm is None else norm(x_BTNE)).transpose(1, 2)
