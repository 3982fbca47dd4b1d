"""The norm of a gradient that no process has as a whole, and shortening it."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hornbook.parallel.mesh import Mesh
from hornbook.parallel.shards import copies_of_part, own_part


def clip_gradients(
    parameters: Iterable[nn.Parameter], twice: Iterable[nn.Parameter], mesh: Mesh, most: float
) -> Tensor:
    """Shorten the gradient of the whole model to the norm `most` where it is longer. Returns its norm before.

    twice: parameters that two stages hold. Every number counts once, however many processes hold it.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    if not mesh.is_spread:
        norm = nn.utils.get_total_norm([parameter.grad for parameter in held if parameter.grad is not None])
        # Multiplying by one would read and write all gradients; on another device, to ask would be to wait.
        if norm.device.type != "cpu" or not most / (norm + 1e-6) >= 1:
            nn.utils.clip_grads_with_norm_(held, most, norm)
        return norm
    held_twice = {id(parameter) for parameter in twice}
    total = torch.zeros((), dtype=torch.float64 if mesh.device.type == "cpu" else torch.float32, device=mesh.device)
    parts = []
    for parameter in held:
        assert parameter.grad is not None
        part = own_part(parameter.grad)
        copies = copies_of_part(parameter.grad) * (2 if id(parameter) in held_twice else 1)
        total += part.square().sum() / copies
        parts.append(part)
    norm = mesh.add_up(total).sqrt()
    if parts:
        torch._foreach_mul_(parts, (most / (norm + 1e-6)).clamp(max=1.0).to(parts[0].dtype))
    return norm.to(parts[0].dtype) if parts else norm
