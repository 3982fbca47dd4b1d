"""The cross entropy in blocks, for training in bfloat16 on a CPU with tiles, is the chunked one."""

import pytest
import torch
from torch import Tensor, nn

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.kernels.blocks import load_blocks
from hornbook.objectives import next_token
from hornbook.objectives.block_cross_entropy import cross_entropy_sum_in_blocks, sums_in_blocks
from hornbook.objectives.next_token import NextToken
from hornbook.objectives.objective import chunked_cross_entropy_sum
from hornbook.runtime import torch_generator

N_ROWS, N_TOKENS, D_MODEL, VOCAB_SIZE = 3, 70, 48, 1000

needs_blocks = pytest.mark.skipif(load_blocks() is None, reason="no C compiler here, or no bfloat16")


def _inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch_generator("cross entropy")
    hidden = torch.randn(N_ROWS, N_TOKENS, D_MODEL, generator=generator).requires_grad_()
    head = torch.randn(VOCAB_SIZE, D_MODEL, generator=generator).requires_grad_()
    labels = torch.randint(0, VOCAB_SIZE, (N_ROWS, N_TOKENS), generator=generator)
    labels[0, :40] = IGNORE_INDEX
    return hidden, head, labels, torch.rand(N_ROWS, N_TOKENS, generator=generator)


@needs_blocks
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_those_of_the_chunked_one(is_weighted: bool, hidden_dtype: torch.dtype) -> None:
    hidden, head, labels, weights = _inputs()
    hidden = hidden.detach().to(hidden_dtype).requires_grad_()
    chosen = weights if is_weighted else None

    loss = cross_entropy_sum_in_blocks(hidden, head, labels, chosen)
    gradients = torch.autograd.grad(loss / 17, (hidden, head))

    rounded = [each.bfloat16().double() for each in (hidden.detach(), head.detach())]
    exact = [each.requires_grad_() for each in rounded]
    expected = chunked_cross_entropy_sum(*exact, labels, chosen)
    assert loss.dtype == torch.float32
    assert [each.dtype for each in gradients] == [hidden_dtype, torch.float32]
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    for ours, right in zip(gradients, torch.autograd.grad(expected / 17, exact), strict=True):
        assert (ours.double() - right).norm() < 0.004 * right.norm()


@needs_blocks
def test_without_gradients_and_without_labels_it_is_the_sum_alone() -> None:
    hidden, head, labels, _ = _inputs()
    with torch.no_grad():
        loss = cross_entropy_sum_in_blocks(hidden, head, labels)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, cross_entropy_sum_in_blocks(hidden, head, labels).detach(), rtol=0, atol=0)

    nothing = cross_entropy_sum_in_blocks(hidden, head, torch.full_like(labels, IGNORE_INDEX))
    assert nothing.item() == 0
    assert all(gradient.eq(0).all() for gradient in torch.autograd.grad(nothing, (hidden, head)))


@needs_blocks
def test_threads_do_not_change_a_bit() -> None:
    hidden, head, labels, weights = _inputs()
    before, found = torch.get_num_threads(), []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        loss = cross_entropy_sum_in_blocks(hidden, head, labels, weights)
        found.append(torch.autograd.grad(loss, (hidden, head)))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


class _Model(nn.Module):
    """Hands on what it was given as hidden vectors."""

    def __init__(self, hidden_BTD: Tensor, head_weight_VD: Tensor) -> None:
        super().__init__()
        self.hidden_BTD, self.head_weight = hidden_BTD, head_weight_VD

    def forward(self, *_: Tensor) -> Tensor:
        return self.hidden_BTD


@pytest.mark.parametrize("few_labels", [False, True])
def test_training_in_bfloat16_takes_it_where_it_pays_and_nothing_else_does(
    few_labels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, head, labels, weights = _inputs()
    batch = Batch(labels.clamp_min(0), labels, torch.zeros_like(labels), torch.zeros_like(labels), weights)
    taken = []

    def spied(*arguments: Tensor) -> Tensor:
        taken.append(True)
        return cross_entropy_sum_in_blocks(*arguments)

    monkeypatch.setattr(next_token, "cross_entropy_sum_in_blocks", spied)
    objective, model = NextToken(few_labels), _Model(hidden, head)
    exact, _ = objective.loss_sum(model, batch)
    assert not taken
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective.loss_sum(model, batch)
        pays = load_blocks() is not None and load_blocks().cross_entropy_pays
        assert sums_in_blocks(head) == pays == bool(taken)
        assert not sums_in_blocks(head.double())
    torch.testing.assert_close(loss, exact, rtol=3e-3, atol=0)
