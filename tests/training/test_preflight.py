"""Each check passes on a healthy training, and fails on the ailment it is meant for."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model import attention
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.runtime import torch_generator
from hornbook.training.preflight import Check, Preflight

N_ROWS, ROW_TOKENS, VOCAB_SIZE = 4, 16, 100


@pytest.fixture
def model() -> Transformer:
    section = ModelSection(n_layers=2, d_model=16, n_heads=2, max_seq_len=ROW_TOKENS)
    model = Transformer(config_from_recipe(section, VOCAB_SIZE))
    init_weights(model, seed=0)
    return model


def _batch(number: int) -> Batch:
    """Rows of two documents each."""
    ids = torch.randint(0, VOCAB_SIZE, (N_ROWS, ROW_TOKENS + 1), generator=torch_generator("check", number))
    positions = torch.arange(ROW_TOKENS).repeat(N_ROWS, 1)
    documents = (positions >= 7).long()
    return Batch(ids[:, :-1], ids[:, 1:].clone(), torch.where(positions < 7, positions, positions - 7), documents)


@pytest.fixture
def checks_of(model: Transformer) -> Callable[..., Preflight]:
    def make(
        batches: list[Batch] | None = None, is_new: bool = True, seconds: float = 60.0, **fields: Any
    ) -> Preflight:
        section = PretrainSection(tokens=6400, global_batch_tokens=N_ROWS * ROW_TOKENS, **fields)
        return Preflight(
            model, NextToken(), batches or [_batch(n) for n in range(4)], section, torch.float32, is_new, seconds
        )

    return make


def test_a_healthy_training_passes_all_and_has_its_weights_again(
    model: Transformer, checks_of: Callable[..., Preflight]
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = list(checks_of().run())

    assert [check.name for check in found if check.passed is not True] == []
    assert len({check.name for check in found}) == len(found) == 7
    for check in found:
        assert check.sentence.endswith(".")
        assert check.figures
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def _fails(check: Check, words: str) -> None:
    assert check.passed is False
    assert words in check.sentence


def test_rows_without_labels_and_of_one_token_are_counted(checks_of: Callable[..., Preflight]) -> None:
    batches = [_batch(0), _batch(1)]
    batches[0].labels[2] = IGNORE_INDEX
    batches[1].input_ids[1] = 5

    check = checks_of(batches).data()

    _fails(check, "1 have nothing to learn and 1 hold one token alone")
    assert check.figures["empty_rows"] == check.figures["constant_rows"] == 1


def test_weights_that_begin_too_large_are_seen_in_the_first_loss(
    model: Transformer, checks_of: Callable[..., Preflight]
) -> None:
    with torch.no_grad():
        model.head_weight.mul_(10)

    _fails(checks_of().first_loss(), f"ln V = {math.log(VOCAB_SIZE):.2f}")


def test_a_model_to_go_on_from_must_know_something(checks_of: Callable[..., Preflight]) -> None:
    _fails(checks_of(is_new=False).first_loss(), "are not those that belong together")


@pytest.mark.parametrize(
    ("mask", "leak"),
    [
        (lambda ids, window: torch.ones(len(ids), 1, ids.shape[1], ids.shape[1], dtype=torch.bool), "later"),
        (lambda ids, window: attention.causal_mask(ids.shape[1], ids.device), "other_documents"),
    ],
)
def test_a_mask_that_shows_the_future_or_another_document_is_found(
    mask: Callable[..., Tensor], leak: str, checks_of: Callable[..., Preflight], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "document_mask", mask)

    check = checks_of().no_future_leaks()

    _fails(check, "attention mask is wrong")
    assert check.figures[leak] > 0


def test_a_part_that_is_cut_off_is_named(
    model: Transformer, checks_of: Callable[..., Preflight], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlp = model.model.layers[1].mlp
    forward = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda x: forward(x).detach())

    _fails(checks_of().gradients(), "model.layers.1.mlp.gate_proj.weight")


def test_a_learning_rate_that_moves_nothing_and_one_that_overturns_everything_are_found(
    checks_of: Callable[..., Preflight],
) -> None:
    _fails(checks_of(lr=1e-9, muon_lr=1e-9).update_ratio(), "raise lr")
    _fails(checks_of(lr=1.0, muon_lr=1.0).update_ratio(), "lower lr")


def test_a_batch_that_cannot_be_learned_is_found(checks_of: Callable[..., Preflight]) -> None:
    _fails(checks_of(lr=1e-9, muon_lr=1e-9).overfit(), "one batch, 40 times")


def test_a_learning_rate_beyond_the_edge_is_found(checks_of: Callable[..., Preflight]) -> None:
    _fails(checks_of(lr=2.0, muon_lr=4.0).learning_rate_range(), "Lower both")


def test_a_model_too_slow_for_the_time_is_said_to_be_unchecked(checks_of: Callable[..., Preflight]) -> None:
    check = checks_of(seconds=0.0).overfit()

    assert check.passed is None
    assert "not made" in check.sentence


def test_weights_without_a_value_pass_none_of_the_checks_that_train(
    model: Transformer, checks_of: Callable[..., Preflight]
) -> None:
    with torch.no_grad():
        model.head_weight[0, 0] = math.nan
    checks = checks_of()

    _fails(checks.first_loss(), "nan nats")
    _fails(checks.update_ratio(), "the loss is nan before the first step")
    _fails(checks.overfit(), "from nan to nan")
    _fails(checks.learning_rate_range(), "the loss is nan before the first step")


def test_a_loss_that_loses_its_value_while_the_updates_are_measured_is_told(
    checks_of: Callable[..., Preflight], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = checks_of()
    backward, losses = checks._backward, iter([5.0, 4.0, math.nan])

    def backward_with_given_loss(batch: Batch) -> float:
        backward(batch)
        return next(losses)

    monkeypatch.setattr(checks, "_backward", backward_with_given_loss)

    _fails(checks.update_ratio(), "the loss is nan after step 2. Lower lr and muon_lr")
