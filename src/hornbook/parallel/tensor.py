"""Tensor parallelism: every layer is shared by several processes, its heads, its width, and the vocabulary.

Each process has some heads of attention and a part of the feed-forward's width (Shoeybi et al. 2019, Megatron-LM,
arXiv 1909.08053, section 3): the matrices into them are cut by outputs, those back out by inputs, and what these give
is added up. Between the layers each process has some tokens of every row, so that norms and sums are not computed
twice (Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2, sequence parallelism): gathering tokens on the way in
and scattering sums on the way out cost together what adding up would.

The vocabulary is cut by its rows. Each process looks up the tokens it has, and computes its own scores; for the loss
they exchange three numbers for each token, never the scores.
"""

from typing import Any

import torch
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


def shared_vocabulary_cross_entropy_sum(
    hidden_ND: Tensor,
    head_weight_VD: DTensor,
    labels_N: Tensor,
    weights_N: Tensor,
    compute_dtype: torch.dtype,
    chunk_tokens: int,
    with_gradient: bool,
) -> Tensor:
    """The loss of `chunked_cross_entropy_sum`, with the rows of the head cut over processes.

    Its group is the only side of the head's mesh along which it is cut here; the others have been gathered.
    """
    mesh, n_rows = head_weight_VD.device_mesh, head_weight_VD.shape[0]
    if n_rows % mesh.size():
        raise ValueError(f"{n_rows} rows of the vocabulary cannot be cut evenly over {mesh.size()} processes")
    first_row = mesh.get_local_rank() * n_rows // mesh.size()
    loss: Tensor = _SharedVocabularyCrossEntropySum.apply(
        hidden_ND,
        head_weight_VD.to_local(),
        labels_N - first_row,
        weights_N,
        mesh.get_group(),
        compute_dtype,
        chunk_tokens,
        with_gradient,
    )
    return loss


class _SharedVocabularyCrossEntropySum(torch.autograd.Function):
    """As objectives.objective's, with V the rows of this process, and labels counted from its first row.

    Each process's part of the hidden gradient is added up here, so that it is whole on each.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_weight_VD: Tensor,
        labels_N: Tensor,
        weights_N: Tensor,
        group: dist.ProcessGroup,
        compute_dtype: torch.dtype,
        chunk_tokens: int,
        with_gradient: bool,
    ) -> Tensor:
        head_VD = head_weight_VD.to(compute_dtype)
        n_rows = head_VD.shape[0]
        loss_sum = weights_N.new_zeros(())
        hidden_grads, head_grad_VD = [], torch.zeros_like(head_weight_VD) if with_gradient else None
        for hidden_CD, labels_C, weights_C in zip(
            hidden_ND.split(chunk_tokens), labels_N.split(chunk_tokens), weights_N.split(chunk_tokens), strict=True
        ):
            hidden_CD = hidden_CD.to(compute_dtype)
            is_here_C1 = ((labels_C >= 0) & (labels_C < n_rows))[:, None]
            labels_C1, weights_C1 = labels_C.clamp(0, n_rows - 1)[:, None], weights_C[:, None]
            scores_CV = (hidden_CD @ head_VD.T).to(weights_N.dtype)
            highest_C1 = scores_CV.amax(1, keepdim=True)
            dist.all_reduce(highest_C1, op=dist.ReduceOp.MAX, group=group)
            exponentials_CV = (scores_CV - highest_C1).exp()
            label_score_C1 = (scores_CV - highest_C1).gather(1, labels_C1) * is_here_C1
            sums_C2 = torch.cat([exponentials_CV.sum(1, keepdim=True), label_score_C1], dim=1)
            dist.all_reduce(sums_C2, group=group)
            total_C1, label_score_C1 = sums_C2[:, :1], sums_C2[:, 1:]
            loss_sum = loss_sum + ((total_C1.log() - label_score_C1) * weights_C1).sum()
            if head_grad_VD is not None:
                scores_grad_CV = (exponentials_CV / total_C1).scatter_add(1, labels_C1, -is_here_C1.to(total_C1.dtype))
                scores_grad_CV = scores_grad_CV.to(compute_dtype)
                hidden_grads.append(((scores_grad_CV @ head_VD) * weights_C1).to(hidden_ND.dtype))
                head_grad_VD += scores_grad_CV.T @ (hidden_CD * weights_C1).to(compute_dtype)
        if head_grad_VD is not None:
            hidden_grad_ND = torch.cat(hidden_grads)
            dist.all_reduce(hidden_grad_ND, group=group)
            ctx.save_for_backward(hidden_grad_ND, head_grad_VD)
        return loss_sum

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad_ND, head_grad_VD = ctx.saved_tensors
        return hidden_grad_ND * grad, head_grad_VD * grad, None, None, None, None, None, None
