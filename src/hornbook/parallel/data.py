"""Data parallelism: each process computes some rows of a step, and keeps a part of the weights (FSDP2, HSDP).

Weights, gradients and the optimizer's state are cut over the processes of `shard`; a layer's weights are gathered for
the time in which it computes (Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054, stage 3; Zhao et al. 2023, PyTorch FSDP,
arXiv 2304.11277). `replicate` repeats that: what lies between two of its groups is one sum of gradients a step.

Gradients are summed, not averaged: the loss is already divided by the count of the whole batch. They are summed in
float32 where bfloat16 is computed in.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from hornbook.parallel.mesh import Mesh


def shard_weights(root: nn.Module, layers: Sequence[nn.Module], mesh: Mesh, dtype: torch.dtype, keep: bool) -> None:
    """Cut the weights of `root`: each of its layers by itself, and all the rest together.

    dtype: of what layers compute in. Embedding, head and the sum between layers stay in the weights' own type. keep:
    leave a layer's weights gathered after its forward pass, as a pipeline wants them, which comes back to it soon.
    """
    sides = ("replicate", "shard") if mesh.section.replicate > 1 else ("shard",)
    grid = mesh.grid[sides]
    computes_bfloat16 = dtype == torch.bfloat16
    layer_policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if computes_bfloat16 else None,
        reduce_dtype=torch.float32 if computes_bfloat16 else None,
        cast_forward_inputs=False,
    )
    for layer in layers:
        fully_shard(layer, mesh=grid, mp_policy=layer_policy, reshard_after_forward=not keep)
    fully_shard(root, mesh=grid, reshard_after_forward=False)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def announce_micro_batch(model: nn.Module, is_last: bool) -> None:
    """Say before a forward pass whether it is a step's last: gradients go between replicas then alone."""
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(is_last)
        model.set_is_last_backward(is_last)


def let_go(model: nn.Module) -> None:
    """Give back gathered weights, after a pass that no backward pass followed.

    While they are gathered, the parameters are not the ones that the optimizer knows, and do not see new values.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
