"""The weights a model starts from.

| weight | starts as | source |
|---|---|---|
| embeddings of tokens and positions, untied head | normal, 0.02 | GPT-2 (Radford et al. 2019; code) |
| projections into a layer (q, k, v, gate, up) | normal, 0.02 | GPT-2 |
| projections back out of a layer (o, down) | normal, 0.02 / √(2 n_layers) | GPT-2, section 2.3 |
| norm weights | one | |
| all biases | zero | |

The outputs of 2 n_layers half-layers are added up on the way through the model; the smaller start keeps their
sum as large as one of them would be.

Each weight draws from its own generator, seeded by the seed and the weight's name. So a weight starts the
same whatever else the model has, in whatever order it is built, and on whatever device.
"""

import torch
from torch import nn

from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator

STANDARD_DEVIATION = 0.02


def init_weights(model: Transformer, seed: int) -> None:
    """Set every parameter in place, by the table above."""
    for name, parameter in model.named_parameters():
        start = torch.empty(parameter.shape, dtype=torch.float32)
        _fill(start, name, model.config.n_layers, seed)
        with torch.no_grad():
            parameter.copy_(start)


def _fill(start: torch.Tensor, name: str, n_layers: int, seed: int) -> None:
    generator = torch_generator(seed, "init", name)
    if name.endswith(".bias"):
        nn.init.zeros_(start)
    elif name.endswith("norm.weight"):
        nn.init.ones_(start)
    elif name.endswith(("o_proj.weight", "down_proj.weight")):
        nn.init.normal_(start, std=STANDARD_DEVIATION / (2 * n_layers) ** 0.5, generator=generator)
    else:
        nn.init.normal_(start, std=STANDARD_DEVIATION, generator=generator)
