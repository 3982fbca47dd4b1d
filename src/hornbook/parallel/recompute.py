"""Less memory for more time: what a layer computed is forgotten, and computed again in the backward pass.

"full" keeps only the input of each layer. "selective" also keeps what is dear to compute and small to keep: the
results of products with weights, and of the fused attention. What is then computed again are norms, rotations,
activations and casts: most of what a layer keeps, and little of its work (Korthikanti et al. 2022, "Reducing
Activation Recomputation in Large Transformer Models", arXiv 2205.05198).

Recomputed activations are the same activations, so gradients do not change.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import hornbook.model.block_attention  # noqa: F401  (makes torch.ops.hornbook.attend)

Recompute = Literal["none", "selective", "full"]

_aten = torch.ops.aten
_DEAR_TO_COMPUTE = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten.linear.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.hornbook.attend.default,
    torch.ops.higher_order.flex_attention,
}


@contextmanager
def recomputed(layers: Iterable[nn.Module], what: Recompute) -> Iterator[None]:
    """Within the block, each of the layers computes again in the backward pass what `what` says.

    Attached from outside: the layers do not know, and their parameters keep their names.
    """
    attached = [] if what == "none" else list(layers)
    options: dict[str, Any] = {"use_reentrant": False}
    if what == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for layer in attached:
        layer.forward = partial(checkpoint, layer.forward, **options)
    try:
        yield
    finally:
        for layer in attached:
            del layer.forward


def _policy(context: Any, operation: Callable[..., Any], *_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _DEAR_TO_COMPUTE else CheckpointPolicy.PREFER_RECOMPUTE
