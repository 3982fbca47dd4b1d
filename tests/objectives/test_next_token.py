"""Next-token prediction counts and sums only what has a label."""

import dataclasses

import pytest
import torch

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.recipe_data import ModelSection

VOCAB_SIZE, N_TOKENS = 17, 6


@pytest.fixture
def model() -> Transformer:
    section = ModelSection(n_layers=1, d_model=8, n_heads=2, max_seq_len=N_TOKENS)
    torch.manual_seed(0)
    return Transformer(config_from_recipe(section, VOCAB_SIZE)).double()


@pytest.fixture
def batch() -> Batch:
    ids = torch.randint(0, VOCAB_SIZE, (2, N_TOKENS + 1), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(N_TOKENS).repeat(2, 1)
    labels = ids[:, 1:].clone()
    labels[1, :4] = IGNORE_INDEX
    return Batch(
        input_ids=ids[:, :-1],
        labels=labels,
        position_ids=positions,
        document_ids=torch.zeros_like(positions),
        weights=None,
    )


@pytest.fixture(params=[False, True], ids=["all tokens", "few labels"])
def objective(request) -> NextToken:
    return NextToken(few_labels=request.param)


def test_the_count_is_the_number_of_labels(objective: NextToken, batch: Batch) -> None:
    assert objective.count(batch).item() == 2 * N_TOKENS - 4


def test_the_loss_is_the_summed_surprise_at_each_label(objective: NextToken, model: Transformer, batch: Batch) -> None:
    loss, _ = objective.loss_sum(model, batch)

    log_probabilities = model.logits(model(batch.input_ids)).log_softmax(-1)
    expected = -sum(
        log_probabilities[row, token, batch.labels[row, token]]
        for row in range(2)
        for token in range(N_TOKENS)
        if batch.labels[row, token] != IGNORE_INDEX
    )
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_weights_multiply_the_loss_of_each_token(objective: NextToken, model: Transformer, batch: Batch) -> None:
    unweighted, _ = objective.loss_sum(model, batch)
    tripled = dataclasses.replace(batch, weights=torch.full(batch.labels.shape, 3.0))

    loss, _ = objective.loss_sum(model, tripled)

    torch.testing.assert_close(loss, 3 * unweighted, rtol=1e-12, atol=0)


def test_a_row_without_labels_adds_nothing(objective: NextToken, model: Transformer, batch: Batch) -> None:
    labels = batch.labels.clone()
    labels[1] = IGNORE_INDEX
    silenced = dataclasses.replace(batch, labels=labels)

    loss, _ = objective.loss_sum(model, silenced)
    alone, _ = objective.loss_sum(model, silenced.rows(0, 1))
    nothing, _ = objective.loss_sum(model, silenced.rows(1, 2))
    nothing.backward()

    torch.testing.assert_close(loss, alone, rtol=1e-12, atol=0)
    assert nothing.item() == 0
    assert all(parameter.grad.eq(0).all() for parameter in model.parameters())
