"""A tensor in one piece and in parts: what each process holds of it, and the whole of it.

A parameter that is spread over processes is torch's DTensor. What is computed number by number, such as AdamW, works
on each process's own part; what needs the whole matrix, such as Muon, gathers it.
"""

import re

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from hornbook.parallel.mesh import Mesh

_OF_A_PART = re.compile(r"^parts\.\d+\.transformer\.")


def own_part(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that may be spread: a view, not a copy."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(part: Tensor, like: Tensor) -> Tensor:
    """The whole of what is spread as `like` is, from this process's part of it. All processes have to call it."""
    if not isinstance(like, DTensor):
        return part
    spread = DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    return spread.full_tensor()


def cut_like(whole: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, where it is spread as `like` is."""
    if not isinstance(like, DTensor):
        return whole
    shape, offsets = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    for dimension, (size, offset) in enumerate(zip(shape, offsets, strict=True)):
        whole = whole.narrow(dimension, offset if size else 0, size)
    return whole


def copies_of_part(tensor: Tensor) -> int:
    """How many processes of the tensor's own grid hold the same part of it."""
    if not isinstance(tensor, DTensor):
        return 1
    sides = zip(tensor.device_mesh.shape, tensor.placements, strict=True)
    return int(torch.tensor([size for size, placement in sides if placement.is_replicate()]).prod())


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that this process has, under the names that they have in the whole model."""
    return {_OF_A_PART.sub("", name): parameter for name, parameter in model.named_parameters()}


def gather_weights(parameters: dict[str, nn.Parameter], shape: nn.Module, mesh: Mesh) -> dict[str, Tensor]:
    """Every weight of the whole model, in main memory, in rank 0; nothing in the others. All have to call it.

    parameters: what this process has a part of. shape: the whole model, whose weights need no values. One weight at a
    time is whole on a device.
    """
    is_pipelined = mesh.section.pipeline > 1
    held: list[list[str]] = [list(parameters)]
    if is_pipelined:
        held = [[] for _ in range(mesh.section.pipeline)]
        dist.all_gather_object(held, list(parameters), group=mesh.group("pipeline"))
    ranks = dist.get_process_group_ranks(mesh.group("pipeline"))
    whole: dict[str, Tensor] = {}
    for name, like in shape.named_parameters():
        owner = next(rank for rank, names in enumerate(held) if name in names)
        tensor = torch.empty(0)
        if mesh.pipeline_rank == owner:
            weight = parameters[name].detach()
            tensor = (weight.full_tensor() if isinstance(weight, DTensor) else weight).contiguous()
            if owner > 0:
                dist.send(tensor, ranks[0])
        elif mesh.pipeline_rank == 0:
            tensor = torch.empty(like.shape, dtype=like.dtype, device=mesh.device)
            dist.recv(tensor, ranks[owner])
        if mesh.is_first:
            whole[name] = tensor.cpu()
    return whole
