"""What one step of training holds in memory, counted tensor by tensor: what the plan's estimate is held against."""

from typing import Any

import torch
from torch import Tensor

from hornbook.batching.packing import fill, plan_rows
from hornbook.batching.shards import Documents
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.recompute import recomputed
from hornbook.recipe_training import TrainingSection
from hornbook.runtime import pick_dtype
from hornbook.training.memory import used_memory_bytes
from hornbook.training.optimizers import build_optimizer


def memory_record(
    model: Transformer, documents: Documents, section: TrainingSection, rows_at_once: int, pad_id: int
) -> dict[str, Any]:
    """The bytes of a step's tensors by part, without compiling, as the plan counts them; and on what they were taken.

    What the loss needs in passing is in no tensor that is kept, so it is not counted. process_bytes is what the program
    holds when training is over, with all that belongs to it; None where that is not known.
    """
    device = model.head_weight.device
    row_tokens = section.row_tokens or model.config.max_seq_len
    rows = plan_rows(documents.lengths, row_tokens)[:rows_at_once]
    batch = fill(rows, documents, row_tokens, pad_id).to(device)
    parameters = list(model.parameters())
    is_cast = pick_dtype(section.precision, device) == torch.bfloat16
    matrix_sizes = {parameter.numel() for parameter in parameters if parameter.ndim == 2}
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[str, dict[int, int]] = {"activations": {}, "cast_weights": {}}
    held = []  # else an address could be used again within the step

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        is_weight = is_cast and tensor.dtype == torch.bfloat16 and tensor.ndim == 2 and tensor.numel() in matrix_sizes
        if storage.data_ptr() not in own:
            kept["cast_weights" if is_weight else "activations"][storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    with (
        recomputed(model.model.layers, section.recompute),
        torch.autocast(device.type, torch.bfloat16, enabled=is_cast),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        loss, _ = NextToken().loss_sum(model, batch)
    held.clear()
    gradients = torch.autograd.grad(loss, [parameter for parameter in parameters if parameter.requires_grad])
    state = build_optimizer(model, section).state
    return {
        "rows": len(rows),
        "precision": "bfloat16" if is_cast else "float32",
        "device": device.type,
        "bytes": {
            "weights": sum(parameter.nbytes for parameter in parameters),
            "gradients": sum(gradient.nbytes for gradient in gradients),
            "optimizer": sum(t.nbytes for tensors in state.values() for t in tensors.values() if t.ndim),
            **{part: sum(storages.values()) for part, storages in kept.items()},
        },
        "process_bytes": used_memory_bytes(device),
    }
