"""Cutting a model into stages that follow each other: which layers each has, and what stands in for the rest.

A stage is the whole model with placeholders for what other stages have: an embedding that hands on what came from the
stage before, layers and norms that change nothing. So the model's own forward pass computes a part of itself, masks,
positions and all, and the weights keep their names.
"""

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from hornbook.model.transformer import Transformer


def cut_layers(layer_costs: Sequence[float], n_stages: int, before: float, after: float) -> list[range]:
    """Contiguous layers for each stage, so that the dearest stage costs the least; each has one layer at least.

    before, after: what the first stage (embedding) and the last one (head) compute besides.
    """
    n_layers = len(layer_costs)
    # best[n]: the cost of the dearest stage, and where the stages begin, when the first n layers have been given away.
    best: list[tuple[float, tuple[int, ...]]] = [(before if n == 0 else float("inf"), ()) for n in range(n_layers + 1)]
    for stage in range(n_stages):
        extra = (before if stage == 0 else 0.0) + (after if stage == n_stages - 1 else 0.0)
        best = [
            min(
                (
                    (max(cost, extra + sum(layer_costs[start:stop])), (*starts, start))
                    for start, (cost, starts) in enumerate(best[:stop])
                ),
                default=(float("inf"), ()),
            )
            for stop in range(n_layers + 1)
        ]
    starts = best[n_layers][1]
    return [range(start, stop) for start, stop in zip(starts, (*starts[1:], n_layers), strict=True)]


def stage_layers(model: Transformer, n_stages: int) -> list[range]:
    """The layers of each stage, by the weights that a token is multiplied with.

    The head counts with all of its rows; the embedding is looked up, one row for each token.
    """
    costs = [float(sum(weight.numel() for weight in layer.parameters())) for layer in model.model.layers]
    return cut_layers(costs, n_stages, before=float(model.config.d_model), after=float(model.head_weight.numel()))


def stage_of(model: Transformer, layers: range) -> Transformer:
    """The part of the model that has these layers, and what belongs before the first or after the last of all.

    Its weights are the model's own, not copies; but where embedding and head are one matrix, the last stage has one
    of its own, which the trainer keeps the same.
    """
    is_first, is_last = layers.start == 0, layers.stop == len(model.model.layers)
    decoder = copy.copy(model.model)
    decoder._modules = dict(decoder._modules)
    decoder.layers = nn.ModuleList(
        layer if index in layers else _PassesOn() for index, layer in enumerate(model.model.layers)
    )
    if not is_first:
        tied = model.model.embed_tokens.weight if is_last and model.lm_head is None else None
        decoder.embed_tokens = Received(tied)
        if decoder.embed_positions is not None:
            decoder.register_module("embed_positions", _AddsNothing())
    if not is_last:
        decoder.norm = nn.Identity()
    stage = copy.copy(model)
    stage._modules = dict(stage._modules)
    stage.model = decoder
    if not is_last:
        stage.lm_head = None
    return stage


class Received(nn.Embedding):
    """In the place of the embedding: what the stage before has sent, set as `hidden` before each pass.

    It keeps the table's weight where the head needs it.
    """

    def __init__(self, weight: Tensor | None) -> None:
        nn.Module.__init__(self)
        # Frozen where it was: beside adapters, the model's own weights are.
        own = None if weight is None else nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
        self.register_parameter("weight", own)
        self.hidden: Tensor | None = None

    def extra_repr(self) -> str:
        return "the stage before"

    def forward(self, input: Tensor) -> Tensor:
        if self.hidden is None:
            raise ValueError("nothing has been received")
        return self.hidden


class _PassesOn(nn.Module):
    """In the place of a layer that another stage has."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return x


class _AddsNothing(nn.Module):
    """In the place of learned positions, which the first stage has added."""

    def forward(self, position_ids: Tensor) -> float:
        return 0.0
