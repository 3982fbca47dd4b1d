"""Muon against a plain loop over single matrices, AdamW against torch's own, and who is trained by which."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hornbook import runtime
from hornbook.model.transformer import Transformer
from hornbook.recipe_training import PretrainSection
from hornbook.training import optimizers
from hornbook.training.optimizers import MuonWithAdamW, build_optimizer, orthogonalize

SHAPES = [(4, 4), (6, 4), (4, 6), (4, 4), (6, 4)]


def _matrices() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def _gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def _plain_muon(matrices: list[Tensor], n_steps: int, lr: float, weight_decay: float) -> list[Tensor]:
    """Muon as its description reads, one matrix at a time."""
    trained = []
    for index, weight in enumerate(matrices):
        momentum = torch.zeros_like(weight)
        for step in range(n_steps):
            gradient = _gradients(step)[index]
            momentum = 0.95 * momentum + 0.05 * gradient
            update = 0.95 * momentum + 0.05 * gradient
            x = update / update.norm()
            for _ in range(5):
                x = 3.4445 * x - 4.7750 * (x @ x.T) @ x + 2.0315 * (x @ x.T) @ (x @ x.T) @ x
            rows, columns = weight.shape
            weight = weight * (1 - lr * weight_decay) - lr * math.sqrt(max(1, rows / columns)) * x
        trained.append(weight)
    return trained


def test_stacked_muon_equals_the_plain_algorithm_on_each_matrix() -> None:
    parameters = [torch.nn.Parameter(matrix.clone()) for matrix in _matrices()]
    optimizer = MuonWithAdamW([{"params": parameters, "kind": "muon", "lr": 0.02, "weight_decay": 0.1}])

    for step in range(4):
        for parameter, gradient in zip(parameters, _gradients(step), strict=True):
            parameter.grad = gradient
        optimizer.step()

    expected = _plain_muon(_matrices(), n_steps=4, lr=0.02, weight_decay=0.1)
    for parameter, weight in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.data, weight, rtol=1e-5, atol=1e-7)


def test_a_copy_of_the_optimizer_makes_the_same_step(make_model: Callable[..., Transformer], make_section) -> None:
    model = make_model()
    optimizer = build_optimizer(model, make_section(optimizer="muon"))
    copied = copy.deepcopy((model, optimizer))
    for its_model, its_optimizer in ((model, optimizer), copied):
        for parameter in its_model.parameters():
            parameter.grad = torch.ones_like(parameter)
        its_optimizer.step()
    for ours, theirs in zip(model.parameters(), copied[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("dtype", "in_bfloat16"), [(torch.float32, False), (torch.float32, True), (torch.float64, False)]
)
def test_orthogonalize_leaves_the_directions_and_makes_their_sizes_about_equal(
    dtype: torch.dtype, in_bfloat16: bool
) -> None:
    matrices = torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    result = orthogonalize(matrices.to(dtype), in_bfloat16)

    assert result.dtype == (torch.bfloat16 if in_bfloat16 else dtype)
    result = result.double()

    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    seen_from_its_axes = left.mT @ result @ right.mT
    sizes = seen_from_its_axes.diagonal(dim1=-2, dim2=-1)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    assert (seen_from_its_axes - torch.diag_embed(sizes)).abs().max() < 0.05


@pytest.mark.parametrize(
    ("kind", "precision", "is_fast", "expected"),
    [
        ("cpu", "float32", True, False),
        ("cpu", "auto", True, True),
        ("cpu", "bfloat16", True, True),
        ("cpu", "bfloat16", False, False),
        ("cuda", "float32", True, True),
        ("cuda", "auto", False, False),
    ],
)
def test_muon_multiplies_in_bfloat16_where_that_is_fast_and_on_a_cpu_computed_in(
    kind: str, precision: str, is_fast: bool, expected: bool, make_section: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "multiplies_bfloat16", lambda device: is_fast)
    monkeypatch.setattr(runtime, "multiplies_bfloat16", lambda device: is_fast)

    section = make_section(precision=precision)

    assert optimizers._multiplies_in_bfloat16(section, torch.device(kind)) == expected


def test_orthogonalize_keeps_a_matrix_of_zeros() -> None:
    assert orthogonalize(torch.zeros(1, 3, 4)).eq(0).all()


def test_the_adamw_groups_do_what_torch_does() -> None:
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in _matrices()] for _ in range(2))
    group = {"kind": "adamw", "lr": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.95)}
    optimizer = MuonWithAdamW([{"params": ours, **group}])
    reference = torch.optim.AdamW(theirs, lr=3e-3, weight_decay=0.1, betas=(0.9, 0.95))

    for step in range(4):
        for our, their, gradient in zip(ours, theirs, _gradients(step), strict=True):
            our.grad, their.grad = gradient, gradient.clone()
        optimizer.step()
        reference.step()

    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-14)


def _names_by_group(model: Transformer, optimizer: MuonWithAdamW) -> dict[tuple[str, bool], set[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        (group["kind"], group["weight_decay"] > 0): {names[parameter] for parameter in group["params"]}
        for group in optimizer.param_groups
    }


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_muon_trains_the_matrices_of_the_layers_and_adamw_the_rest(
    tie_embeddings: bool, make_model: Callable[..., Transformer], make_section: Callable[..., PretrainSection]
) -> None:
    model = make_model(tie_embeddings=tie_embeddings)

    groups = _names_by_group(model, build_optimizer(model, make_section(optimizer="muon")))

    by_muon = groups["muon", True]
    assert {name.split(".", 3)[-1] for name in by_muon} == {
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
        "self_attn.o_proj.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
    }
    assert groups.get(("adamw", True), set()) == (set() if tie_embeddings else {"lm_head.weight"})
    assert "model.embed_tokens.weight" in groups["adamw", False]
    assert set().union(*groups.values()) == {name for name, _ in model.named_parameters()}


def test_adamw_alone_decays_the_matrices_and_not_embeddings_norms_and_biases(
    make_model: Callable[..., Transformer], make_section: Callable[..., PretrainSection]
) -> None:
    model = make_model(preset="gpt2")

    groups = _names_by_group(model, build_optimizer(model, make_section(optimizer="adamw")))

    assert set(groups) == {("adamw", True), ("adamw", False)}
    parameters = dict(model.named_parameters())
    assert all(parameters[name].ndim == 2 and "embed" not in name for name in groups["adamw", True])
    assert all(parameters[name].ndim == 1 or "embed" in name for name in groups["adamw", False])


def test_frozen_parameters_have_no_state(
    make_model: Callable[..., Transformer], make_section: Callable[..., PretrainSection]
) -> None:
    model = make_model()
    model.model.embed_tokens.weight.requires_grad_(False)

    optimizer = build_optimizer(model, make_section())

    assert model.model.embed_tokens.weight not in optimizer.state


def test_an_optimizer_restored_from_its_state_dict_goes_on_alike() -> None:
    def train(optimizer: MuonWithAdamW, parameters: list[torch.nn.Parameter], steps: range) -> None:
        for step in steps:
            for parameter, gradient in zip(parameters, _gradients(step), strict=True):
                parameter.grad = gradient
            optimizer.step()

    def build(parameters: list[torch.nn.Parameter]) -> MuonWithAdamW:
        adamw = {"kind": "adamw", "lr": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.95)}
        muon = {"kind": "muon", "lr": 0.02, "weight_decay": 0.1}
        return MuonWithAdamW([{"params": parameters[:2], **muon}, {"params": parameters[2:], **adamw}])

    parameters = [torch.nn.Parameter(matrix.clone()) for matrix in _matrices()]
    optimizer = build(parameters)
    train(optimizer, parameters, range(2))
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    restored = build(copies)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    train(optimizer, parameters, range(2, 5))
    train(restored, copies, range(2, 5))

    for parameter, restored_parameter in zip(parameters, copies, strict=True):
        assert torch.equal(parameter, restored_parameter)
