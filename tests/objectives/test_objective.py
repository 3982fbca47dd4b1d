"""The chunked cross entropy against torch's own, computed at once."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX
from hornbook.objectives.objective import chunked_cross_entropy_sum, labelled

N_ROWS, N_TOKENS, D_MODEL, VOCAB_SIZE = 3, 7, 5, 11


def _inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N_ROWS, N_TOKENS, D_MODEL, generator=generator, dtype=dtype, requires_grad=True)
    head = torch.randn(VOCAB_SIZE, D_MODEL, generator=generator, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, VOCAB_SIZE, (N_ROWS, N_TOKENS), generator=generator)
    labels[0, :4] = IGNORE_INDEX
    weights = torch.rand(N_ROWS, N_TOKENS, generator=generator, dtype=dtype)
    return hidden, head, labels, weights


def _reference(hidden: Tensor, head: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    losses = F.cross_entropy(
        (hidden @ head.T).flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return (losses if weights is None else losses * weights.flatten()).sum()


@pytest.mark.parametrize("chunk_tokens", [1, 4, 21, 100])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_loss_and_gradients_equal_those_of_the_whole_batch_at_once(chunk_tokens: int, is_weighted: bool) -> None:
    hidden, head, labels, weights = _inputs()
    chosen = weights if is_weighted else None

    loss = chunked_cross_entropy_sum(hidden, head, labels, chosen, chunk_tokens)
    gradients = torch.autograd.grad(loss / 17, (hidden, head))

    expected = _reference(hidden, head, labels, chosen)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected / 17, (hidden, head)), rtol=1e-12, atol=1e-14)


def test_a_batch_without_labels_has_loss_and_gradients_of_zero() -> None:
    hidden, head, labels, _ = _inputs()

    loss = chunked_cross_entropy_sum(hidden, head, torch.full_like(labels, IGNORE_INDEX))

    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, (hidden, head)):
        assert gradient.eq(0).all()


def test_scores_far_beyond_the_range_of_exp_give_a_finite_loss() -> None:
    hidden, head, labels, _ = _inputs(torch.float32)

    loss = chunked_cross_entropy_sum(hidden * 1e4, head, labels)

    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, (hidden, head)))


def test_under_autocast_products_are_in_bfloat16_and_loss_and_gradients_in_float32() -> None:
    hidden, head, labels, _ = _inputs(torch.float32)

    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_cross_entropy_sum(hidden, head, labels, chunk_tokens=4)
    gradients = torch.autograd.grad(loss, (hidden, head))

    expected = _reference(hidden, head, labels, None)
    exact_gradients = torch.autograd.grad(expected, (hidden, head))
    assert loss.dtype == gradients[0].dtype == gradients[1].dtype == torch.float32
    assert loss != expected
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=0)
    for gradient, exact in zip(gradients, exact_gradients, strict=True):
        assert (gradient - exact).norm() < 0.02 * exact.norm()


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, head, labels, weights = _inputs()

    with torch.no_grad():
        loss = chunked_cross_entropy_sum(hidden, head, labels, weights, chunk_tokens=4)

    assert not loss.requires_grad
    torch.testing.assert_close(loss, _reference(hidden, head, labels, weights).detach(), rtol=1e-12, atol=0)


def test_a_frozen_head_gets_no_gradient_and_changes_no_other() -> None:
    hidden, head, labels, _ = _inputs()

    loss = chunked_cross_entropy_sum(hidden, head.detach(), labels, chunk_tokens=4)

    expected = torch.autograd.grad(_reference(hidden, head, labels, None), hidden)
    torch.testing.assert_close(torch.autograd.grad(loss, hidden), expected, rtol=1e-12, atol=1e-14)


def test_labelled_tokens_come_in_few_lengths_and_the_filling_has_no_label() -> None:
    hidden_BTD = torch.arange(2 * 90 * 3, dtype=torch.float32).reshape(2, 90, 3)
    for n_labelled in (0, 1, 64, 65, 180):
        labels_BT = torch.full((2, 90), IGNORE_INDEX)
        labels_BT.view(-1)[:n_labelled] = 7
        hidden_ND, labels_N = labelled(hidden_BTD, labels_BT)
        assert len(hidden_ND) == len(labels_N) == -(-n_labelled // 64) * 64
        assert torch.equal(hidden_ND[:n_labelled], hidden_BTD.flatten(0, 1)[:n_labelled])
        assert labels_N.tolist() == [7] * n_labelled + [IGNORE_INDEX] * (len(labels_N) - n_labelled)
