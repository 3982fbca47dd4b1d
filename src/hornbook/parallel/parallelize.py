"""Spreading a model over processes, from outside, in this order: stages, tensor, FSDP2, context.

Each wraps what the one before has made: layers are cut along the tensor side first, and FSDP gathers the weights around
that; sharing rows only changes what the finished model is given. Two more are attached for a while: recomputing for the
time of a training (`SpreadModel.training`), in a layer's forward, inside of FSDP's hooks, so that it includes the
exchanges along the tensor side; and compiling (hornbook.parallel.compiled), which sees all of it.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hornbook.model.init import initial_weight
from hornbook.model.transformer import Layer, Transformer
from hornbook.parallel.context import share_rows
from hornbook.parallel.data import shard_weights
from hornbook.parallel.gradients import clip_gradients
from hornbook.parallel.mesh import Mesh
from hornbook.parallel.pipeline import PipelinedModel, StagePart
from hornbook.parallel.recompute import Recompute, recomputed
from hornbook.parallel.shards import cut_like, gather_weights, named_parameters, own_part
from hornbook.parallel.stages import stage_layers, stage_of
from hornbook.parallel.tensor import share_layers


@dataclass(frozen=True)
class SpreadModel:
    """A model as this process has it: whole where it is alone, else its part.

    model: what is trained, a Transformer, or a PipelinedModel that can be called as one. shape: the whole model,
    without values. It is one and the same with `model` where the process is alone.
    """

    model: Any
    shape: Transformer
    mesh: Mesh

    @classmethod
    def alone(cls, model: Transformer, device: torch.device) -> "SpreadModel":
        return cls(model, model, Mesh.alone(device))

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers that this process has."""
        return [module for module in self.model.modules() if isinstance(module, Layer)]

    @property
    def is_pipelined(self) -> bool:
        return isinstance(self.model, PipelinedModel)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Give this process's part of a new model its weights: those that the whole model would begin with.

        One weight at a time is whole, in main memory; the model never is.
        """
        for name, parameter in named_parameters(self.model).items():
            whole = initial_weight(name, parameter.shape, self.shape.config.n_layers, seed)
            own_part(parameter).copy_(cut_like(whole, parameter))

    @contextmanager
    def training(self, recompute: Recompute) -> Iterator[None]:
        """Within the block, layers compute again in the backward pass what `recompute` says."""
        with recomputed(self.layers, recompute):
            yield

    def clip(self, most: float) -> Tensor:
        """Shorten the gradient to the norm `most`, where it is longer; its norm before, of the whole model."""
        twice = self.model.tied_copies() if isinstance(self.model, PipelinedModel) else []
        return clip_gradients(self.model.parameters(), twice, self.mesh, most)

    def whole_weights(self) -> dict[str, Tensor]:
        """Every weight of the whole model, in main memory, in rank 0; nothing in the others. All have to call it."""
        if not self.mesh.is_spread:
            return {name: weight.detach().cpu().contiguous() for name, weight in named_parameters(self.model).items()}
        return gather_weights(named_parameters(self.model), self.shape, self.mesh)

    def whole_model(self) -> Transformer:
        """The whole model: with its weights in rank 0, without any in the others. All have to call it."""
        if not self.mesh.is_spread:
            return self.shape
        weights = self.whole_weights()
        if self.mesh.is_first:
            self.shape.to_empty(device="cpu")
            self.shape.load_state_dict(weights)
        return self.shape


def parallelize(model: Transformer, mesh: Mesh, dtype: torch.dtype) -> SpreadModel:
    """Spread the model over the processes of the mesh. It is used up: what comes back takes its place.

    dtype: the type to compute in. A process that is alone gets the model as it is, on its device. A model without
    values, on torch's meta device, comes back without values too, but with room for those of this process's part:
    `SpreadModel.init_weights` gives it them.
    """
    if not mesh.is_spread:
        _move(model, mesh.device)
        return SpreadModel.alone(model, mesh.device)
    shape = _without_values(model)
    weights_dtype = model.head_weight.dtype
    section = mesh.section
    if section.pipeline > 1:
        numbers = range(mesh.pipeline_rank, section.stages, section.pipeline)
        cuts = stage_layers(model, section.stages)
        pieces = [(number, stage_of(model, cuts[number])) for number in numbers]
    else:
        pieces = [(0, model)]
    roots: list[nn.Module] = []
    for number, piece in pieces:
        layers = [module for module in piece.modules() if isinstance(module, Layer)]
        if section.tensor > 1:
            share_layers(piece, mesh.grid["tensor"])
        is_part = section.pipeline > 1
        root = StagePart(piece, number, number == section.stages - 1) if is_part else piece
        shard_weights(root, layers, mesh, dtype, keep=is_part)
        _move(root, mesh.device)
        roots.append(root)
    if section.context > 1:
        for whole in roots:
            assert isinstance(whole, Transformer)
            share_rows(whole, mesh)
    if section.pipeline > 1:
        parts = [root for root in roots if isinstance(root, StagePart)]
        return SpreadModel(PipelinedModel(model.config, parts, mesh, weights_dtype), shape, mesh)
    assert isinstance(roots[0], Transformer)
    return SpreadModel(roots[0], shape, mesh)


def _move(module: nn.Module, device: torch.device) -> None:
    has_values = not any(parameter.is_meta for parameter in module.parameters())
    module.to(device) if has_values else module.to_empty(device=device)


def _without_values(model: Transformer) -> Transformer:
    """The same model on torch's meta device, made without a second copy of its weights."""
    instead = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, instead)
