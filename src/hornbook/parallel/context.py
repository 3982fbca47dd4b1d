"""Context parallelism: several processes share the tokens of every row, for rows that are too long for one.

Each process computes its own stretch of a row. Only attention looks beyond it: there the keys and values of all
stretches are gathered, which with few key-value heads are much smaller than the activations (Llama Team 2024, arXiv
2407.21783, section 3.3.2, does the same). So any mask works, also that of rows with several documents. A ring (Liu et
al. 2023, arXiv 2310.01889), in which keys are passed on, would need a kernel of its own.

The model knows nothing of it: what it is given stands where a cache of earlier keys and values does.

Shapes: B rows, T tokens of this process, S tokens of the whole row, K kv heads, E head_dim.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hornbook.model.attention import causal_mask
from hornbook.model.transformer import Transformer
from hornbook.parallel.mesh import Mesh

_TOKENS = 3
"""The dimension of a row's tokens in (2,B,K,T,E)."""


def share_rows(model: Transformer, mesh: Mesh) -> None:
    """Attach it to a model: while it trains, it takes each process's own stretch of every row.

    In evaluation each process computes whole rows, as it would alone.
    """
    group = mesh.context_group

    def with_all_keys(model: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        if not model.training:
            return given, named
        input_ids_BT, position_ids_BT, document_ids_BT = (*given, None, None)[:3]
        return (input_ids_BT,), {"cache": SharedRow(input_ids_BT, position_ids_BT, document_ids_BT, group)}

    model.register_forward_pre_hook(with_all_keys, with_kwargs=True)


class SharedRow:
    """The keys and values of all processes of the group, for the tokens of this one. A `KeyValueCache`."""

    def __init__(
        self,
        input_ids_BT: Tensor,
        position_ids_BT: Tensor | None,
        document_ids_BT: Tensor | None,
        group: dist.ProcessGroup,
    ) -> None:
        n_tokens = input_ids_BT.shape[1]
        self._group = group
        self._start, self._n_row_tokens = dist.get_rank(group) * n_tokens, group.size() * n_tokens
        self._positions_BT = position_ids_BT
        self._documents_BT, self._documents_BS = document_ids_BT, None
        if position_ids_BT is None:
            self._positions_BT = torch.arange(self._start, self._start + n_tokens, device=input_ids_BT.device)[None]
        if document_ids_BT is not None:
            self._documents_BS = _gathered(document_ids_BT, group, dim=1)

    def position_ids(self, n_new: int) -> Tensor:
        assert self._positions_BT is not None
        return self._positions_BT

    def mask(self, n_new: int, window_tokens: int | None = None) -> Tensor:
        assert self._positions_BT is not None
        is_seen_11SS = causal_mask(self._n_row_tokens, self._positions_BT.device, window_tokens)
        is_seen_B1TS = is_seen_11SS[:, :, self._start : self._start + n_new]
        if self._documents_BS is not None and self._documents_BT is not None:
            same_BTS = self._documents_BT[:, :, None] == self._documents_BS[:, None, :]
            is_seen_B1TS = is_seen_B1TS & same_BTS[:, None]
        return is_seen_B1TS

    def store(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        k_BKSE, v_BKSE = _AllStretches.apply(torch.stack([k_BKTE, v_BKTE]), self._group)
        return k_BKSE, v_BKSE

    def advance(self, n_new: int) -> None:
        """Nothing is kept for later."""


class _AllStretches(torch.autograd.Function):
    """(2,B,K,T,E) of each process → (2,B,K,S,E). Backward, each gets what all queries say of its own stretch."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _gathered(own, group, _TOKENS)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        stretches = grad.chunk(ctx.group.size(), dim=_TOKENS)
        own = torch.empty_like(stretches[0], memory_format=torch.contiguous_format)
        dist.reduce_scatter_tensor(own, torch.cat(stretches), group=ctx.group)
        return own, None


def _gathered(own: Tensor, group: dist.ProcessGroup, dim: int) -> Tensor:
    stretches = own.new_empty((group.size() * own.shape[0], *own.shape[1:]))
    dist.all_gather_into_tensor(stretches, own.contiguous(), group=group)
    return torch.cat(stretches.chunk(group.size()), dim)
