"""Tensor parallelism: every layer is shared by several processes, its heads, its width, and the vocabulary.

Each process has some heads of attention and a part of the feed-forward's width (Shoeybi et al. 2019, Megatron-LM,
arXiv 1909.08053, section 3): the matrices into them are cut by outputs, those back out by inputs, and what these give
is added up. Between the layers each process has some tokens of every row, so that norms and sums are not computed
twice (Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2, sequence parallelism): gathering tokens on the way in
and scattering sums on the way out cost together what adding up would.

The vocabulary is cut by its rows. Each process looks up the tokens it has, and computes its own scores; for the loss
they exchange three numbers for each token, never the scores.
"""

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from hornbook.model.transformer import Transformer
from hornbook.parallel.stages import Received

_TOKENS, _HEADS = 1, 2


def share_layers(model: Transformer, mesh: DeviceMesh) -> None:
    """Cut the model's weights along the mesh, and attach what exchanges activations. It computes the same.

    The vectors that the model gives are whole on each process, and so must their gradients be.
    """
    by_tokens, whole = Shard(_TOKENS), Replicate()
    plan: dict[str, ParallelStyle] = {"norm": SequenceParallel()}
    decoder = model.model
    for table in ("embed_tokens", "embed_positions"):
        plan[table] = RowwiseParallel(input_layouts=whole, output_layouts=by_tokens)
    if isinstance(decoder.embed_tokens, Received):
        del plan["embed_tokens"]
        _cut_rows(decoder.embed_tokens, mesh)
    parallelize_module(decoder, mesh, {name: style for name, style in plan.items() if _has(decoder, name)})
    if _has(decoder, "norm"):
        parallelize_module(
            decoder.norm, mesh, PrepareModuleOutput(output_layouts=by_tokens, desired_output_layouts=whole)
        )
    if model.lm_head is not None:
        _cut_rows(model.lm_head, mesh)
    for layer in decoder.layers:
        parallelize_module(layer, mesh, _layer_plan(layer))


def _layer_plan(layer: nn.Module) -> dict[str, ParallelStyle]:
    by_tokens, whole = Shard(_TOKENS), Replicate()
    plan: dict[str, ParallelStyle] = {
        "input_layernorm": SequenceParallel(),
        "self_attn": PrepareModuleInput(
            input_layouts=(by_tokens, None, None, None), desired_input_layouts=(whole, None, None, None)
        ),
        "self_attn.o_proj": RowwiseParallel(output_layouts=by_tokens),
        "post_attention_layernorm": SequenceParallel(),
        "mlp": PrepareModuleInput(input_layouts=(by_tokens,), desired_input_layouts=(whole,)),
        "mlp.down_proj": RowwiseParallel(output_layouts=by_tokens),
    }
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
        plan[name] = ColwiseParallel()
    for name in ("self_attn.q_norm", "self_attn.k_norm"):
        # Each process norms its own heads; its weight is the same for all of them.
        plan[name] = SequenceParallel(sequence_dim=_HEADS, use_local_output=True)
    return {name: style for name, style in plan.items() if _has(layer, name)}


def _cut_rows(module: nn.Module, mesh: DeviceMesh) -> None:
    """Cut the weight of a module that is never called, but asked for its weight."""
    weight = module.weight
    if isinstance(weight, Tensor):
        cut = distribute_tensor(weight.detach(), mesh, [Shard(0)], src_data_rank=None)
        module.register_parameter("weight", nn.Parameter(cut))


def _has(module: nn.Module, name: str) -> bool:
    """Whether there is such a part of its own: not left out of this model, nor left to another stage."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None and any(True for _ in found.parameters())


@dataclass(frozen=True)
class Rows:
    """Some rows of the vocabulary, of which each process of a group has as many."""

    first: int
    number: int
    group: dist.ProcessGroup

    def find(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Labels counted from the first row here, and which are here; those that are not are given any row."""
        here = labels - self.first
        return here.clamp(0, self.number - 1), (here >= 0) & (here < self.number)

    def largest(self, values: Tensor) -> None:
        """The largest of all processes' values, in place."""
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self.group)

    def add_up(self, values: Tensor) -> None:
        """The sum over all processes, in place."""
        dist.all_reduce(values, group=self.group)


def own_rows(head_weight_VD: DTensor) -> tuple[Tensor, Rows]:
    """This process's rows of a head that is cut along the vocabulary alone, and which they are.

    The group is the only side of the head's mesh along which it is cut here; the others have been gathered.
    """
    mesh, n_rows = head_weight_VD.device_mesh, head_weight_VD.shape[0]
    if n_rows % mesh.size():
        raise ValueError(f"{n_rows} rows of the vocabulary cannot be cut evenly over {mesh.size()} processes")
    number = n_rows // mesh.size()
    return head_weight_VD.to_local(), Rows(mesh.get_local_rank() * number, number, mesh.get_group())
