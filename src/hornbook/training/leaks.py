"""What a model's answer depends on: the gradient of one place with respect to every token's embedding."""

import torch
from torch import Tensor, nn

from hornbook.batching.packing import Batch
from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator


def dependence(model: Transformer, row: Batch, place: int) -> Tensor:
    """(T,): how strongly the last hidden vector at `place` of a batch of one row depends on each of its T tokens.

    It is the norm of the gradient with respect to the token's embedding, and exactly 0 where nothing is seen of it.
    """
    embedded: list[Tensor] = []

    def cut(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[0]

    hook = model.model.embed_tokens.register_forward_hook(cut)
    try:
        hidden_BTD = model(row.input_ids, row.position_ids, row.document_ids)
    finally:
        hook.remove()
    # A random direction: the plain sum over a normalised vector does not depend on anything.
    direction_D = torch.randn(hidden_BTD.shape[-1], generator=torch_generator("leaks")).to(hidden_BTD)
    with torch.autocast(hidden_BTD.device.type, enabled=False):
        (gradient_BTD,) = torch.autograd.grad(hidden_BTD[0, place] @ direction_D, embedded)
    return gradient_BTD[0].norm(dim=-1)
