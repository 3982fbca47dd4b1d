"""The weights a model starts from.

| weight | starts as | source |
|---|---|---|
| embeddings of tokens, untied head | normal, 1 / √d_model | rows of length 1; GPT-2's 0.02 is this at d_model 2,500 |
| embeddings of positions | normal, 0.02 | GPT-2 (Radford et al. 2019; code) |
| projections into a layer (q, k, v, gate, up) | normal, 1 / √inputs | LeCun et al. 1998, section 4.6 |
| projections back out of a layer (o, down) | the same / √(2 n_layers) | GPT-2, section 2.3 |
| norm weights | one | |
| all biases | zero | |

The outputs of 2 n_layers half-layers are added up on the way through the model; the smaller start keeps their
sum as large as one of them would be. The embedding is where that sum begins: much smaller, it would be drowned by
the first layer, and which token stands where could be told only after long training (docs/LOG.md has the figures).

Each weight draws from its own generator, seeded by the seed and the weight's name. So a weight starts the
same whatever else the model has, in whatever order it is built, and on whatever device.
"""

import torch
from torch import nn

from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator

POSITION_STANDARD_DEVIATION = 0.02


def init_weights(model: Transformer, seed: int) -> None:
    """Set every parameter in place, by the table above."""
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.copy_(initial_weight(name, parameter.shape, model.config.n_layers, seed))


def initial_weight(name: str, shape: torch.Size, n_layers: int, seed: int) -> torch.Tensor:
    """The weight of this name by the table above, float32, in main memory."""
    start = torch.empty(shape, dtype=torch.float32)
    generator = torch_generator(seed, "init", name)
    if name.endswith(".bias"):
        nn.init.zeros_(start)
    elif name.endswith("norm.weight"):
        nn.init.ones_(start)
    elif name.endswith("embed_positions.weight"):
        nn.init.normal_(start, std=POSITION_STANDARD_DEVIATION, generator=generator)
    elif name.endswith(("o_proj.weight", "down_proj.weight")):
        nn.init.normal_(start, std=(2 * n_layers * start.shape[1]) ** -0.5, generator=generator)
    else:
        nn.init.normal_(start, std=start.shape[1] ** -0.5, generator=generator)
    return start
