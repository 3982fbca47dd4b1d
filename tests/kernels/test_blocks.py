"""What is computed in blocks of bfloat16 is what float64 gives, by tiles and by vectors, at sizes that fill none."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hornbook.kernels.blocks import BlockKernels, load_blocks
from hornbook.runtime import torch_generator

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
BY_VECTORS = ("-mno-amx-tile",)


@pytest.fixture(scope="module", params=[(), BY_VECTORS], ids=["tiles", "vectors"])
def kernels(request: pytest.FixtureRequest) -> BlockKernels:
    """The functions; what needs them is skipped where compiler or instructions are missing."""
    found = load_blocks(*request.param)
    if found is None:
        pytest.skip("no C compiler here, or no instructions for bfloat16")
    return found


@pytest.fixture(autouse=True, params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever is computed, one thread and several give the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch_generator("blocks", *shape))


def iterated(matrix: Tensor) -> Tensor:
    """Newton-Schulz in float64, as it is written."""
    a, b, c = COEFFICIENTS
    x = matrix.double() / (matrix.double().norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


SHAPES = [(64, 64), (96, 40), (40, 96), (33, 33), (1, 7), (70, 3), (384, 128)]


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_matrices_are_those_of_float64(kernels: BlockKernels, shape: tuple[int, int]) -> None:
    matrix = normal(*shape)
    result = matrix.clone()
    kernels.orthogonalize([result], COEFFICIENTS, 5)
    # bfloat16 has 8 bits, and five iterations round a dozen times.
    assert (result - iterated(matrix)).norm() < 0.03 * iterated(matrix).norm()


def test_a_matrix_of_zeros_stays_one(kernels: BlockKernels) -> None:
    zeros = torch.zeros(40, 8)
    kernels.orthogonalize([zeros], COEFFICIENTS, 5)
    assert zeros.eq(0).all()


def test_a_step_moves_momenta_and_weights_of_all_matrices(kernels: BlockKernels) -> None:
    weights = [normal(*shape) for shape in SHAPES]
    gradients = [normal(1, *shape)[0] for shape in SHAPES]
    momenta = [normal(1, 1, *shape)[0, 0] for shape in SHAPES]
    steps = [0.01 * math.sqrt(max(1, shape[0] / shape[1])) for shape in SHAPES]
    new_momenta = [0.9 * past + 0.1 * now for past, now in zip(momenta, gradients, strict=True)]
    directions = [0.1 * now + 0.9 * past for past, now in zip(new_momenta, gradients, strict=True)]
    expected = [
        0.5 * weight - step * iterated(direction)
        for weight, step, direction in zip(weights, steps, directions, strict=True)
    ]

    kernels.muon_step(weights, gradients, momenta, 0.9, COEFFICIENTS, 5, 0.5, steps)

    for weight, wanted, past, new, step in zip(weights, expected, momenta, new_momenta, steps, strict=True):
        torch.testing.assert_close(past, new)
        assert (weight - wanted).norm() < 0.03 * step * wanted.shape[0] ** 0.5 + 1e-6 * wanted.norm()


def test_a_gradient_of_another_shape_is_refused(kernels: BlockKernels) -> None:
    with pytest.raises(ValueError, match="of one shape"):
        kernels.muon_step([normal(4, 4)], [normal(4, 2)], [normal(4, 4)], 0.9, COEFFICIENTS, 5, 1.0, [0.1])


def test_other_tensors_are_refused(kernels: BlockKernels) -> None:
    for wrong in (normal(4, 4).double(), normal(4, 6).T):
        with pytest.raises(TypeError, match="float32, contiguous and on the CPU"):
            kernels.orthogonalize([wrong], COEFFICIENTS, 5)


@pytest.mark.parametrize(("n_tokens", "head_dim"), [(64, 64), (100, 24), (33, 96)])
def test_attention_is_that_of_float64(kernels: BlockKernels, n_tokens: int, head_dim: int) -> None:
    heads = [normal(2, n, n_tokens, head_dim).bfloat16() for n in (4, 2, 2)]
    upstream = normal(4, 2, n_tokens, head_dim).transpose(0, 1).bfloat16()
    first_seen = (torch.arange(n_tokens, dtype=torch.int32) - 40).clamp_min(0).repeat(2, 1)
    out, log_sums = torch.empty_like(heads[0]), torch.empty(2, 4, n_tokens)
    gradients = (torch.empty_like(heads[0]), torch.empty_like(heads[1]), torch.empty_like(heads[2]))

    kernels.attend_forward(*heads, first_seen, out, log_sums)
    kernels.attend_backward(*heads, first_seen, log_sums, upstream, gradients)

    q, k, v = (each.double().requires_grad_() for each in heads)
    order = torch.arange(n_tokens)
    is_seen = (order[None] <= order[:, None]) & (order[None] >= first_seen[0, :, None])
    scores = q @ k.repeat_interleave(2, 1).mT / head_dim**0.5
    scores = scores.masked_fill(~is_seen, float("-inf"))
    expected = scores.softmax(-1) @ v.repeat_interleave(2, 1)
    torch.testing.assert_close(log_sums, scores.logsumexp(-1).float(), rtol=1e-4, atol=1e-4)
    exact = (expected, *torch.autograd.grad(expected, (q, k, v), upstream.double()))
    for ours, right in zip((out, *gradients), exact, strict=True):
        assert (ours.double() - right).norm() <= 0.006 * right.norm()


@pytest.mark.parametrize(("n_tokens", "n_words", "size"), [(70, 300, 40), (64, 2000, 64), (1100, 1030, 96), (1, 5, 16)])
def test_cross_entropy_and_its_gradients_are_those_of_float64(
    kernels: BlockKernels, n_tokens: int, n_words: int, size: int
) -> None:
    hidden, head = normal(n_tokens, size).bfloat16(), normal(n_words, size)
    labels = torch.randint(n_words, (n_tokens,), generator=torch_generator("labels", n_words))
    weights = normal(n_tokens).abs()
    losses, gradients = torch.empty(n_tokens), (torch.empty(n_tokens, size), torch.empty(n_words, size))

    kernels.cross_entropy(hidden, head, labels, weights, losses, gradients)
    alone = torch.empty(n_tokens)
    kernels.cross_entropy(hidden, head, labels, weights, alone, None)

    exact_hidden, exact_head = hidden.double().requires_grad_(), head.bfloat16().double().requires_grad_()
    exact = weights.double() * cross_entropy(exact_hidden @ exact_head.T, labels, reduction="none")
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(alone, losses)
    for ours, right in zip(gradients, torch.autograd.grad(exact.sum(), (exact_hidden, exact_head)), strict=True):
        # The scores' gradients have 8 bits.
        assert (ours.double() - right).norm() <= 0.003 * right.norm()


def test_cross_entropy_of_no_tokens_has_gradients_of_zero(kernels: BlockKernels) -> None:
    none = torch.empty(0)
    gradients = (torch.empty(0, 8), torch.full((40, 8), float("nan")))
    kernels.cross_entropy(torch.empty(0, 8).bfloat16(), normal(40, 8), none.long(), none, none, gradients)
    assert gradients[1].eq(0).all()


def test_cross_entropy_of_scores_beyond_the_range_of_exp_is_finite(kernels: BlockKernels) -> None:
    hidden, head = 1e4 * normal(40, 16).bfloat16(), normal(64, 16)
    losses, gradients = torch.empty(40), (torch.empty(40, 16), torch.empty(64, 16))
    kernels.cross_entropy(hidden, head, torch.arange(40), torch.ones(40), losses, gradients)
    assert all(each.isfinite().all() for each in (losses, *gradients))


@pytest.mark.parametrize("first", [0, 512])
def test_words_that_cannot_come_leave_the_others_as_they_are(kernels: BlockKernels, first: int) -> None:
    hidden, head = normal(40, 16).abs().bfloat16(), normal(1024, 16)
    head[first : first + 512] = float("-inf")
    labels, losses = torch.arange(40) + 512 - first, torch.empty(40)
    kernels.cross_entropy(hidden, head, labels, torch.ones(40), losses, None)
    exact = cross_entropy(hidden.double() @ head.bfloat16().double().T, labels, reduction="none")
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-5)


def test_a_number_that_is_none_stays_one_in_cross_entropy(kernels: BlockKernels) -> None:
    hidden = normal(40, 16).bfloat16()
    hidden[7, 3] = float("nan")
    losses, gradients = torch.empty(40), (torch.empty(40, 16), torch.empty(64, 16))
    kernels.cross_entropy(hidden, normal(64, 16), torch.arange(40), torch.ones(40), losses, gradients)
    assert losses.isnan().nonzero().flatten().tolist() == [7]
    assert gradients[0].isnan().all(1).nonzero().flatten().tolist() == [7]
    assert gradients[1].isnan().any(1).all()


def test_labels_that_are_no_words_are_refused(kernels: BlockKernels) -> None:
    for label in (-1, 64):
        labels = torch.full((4,), label)
        with pytest.raises(ValueError, match="not among the 64 words"):
            kernels.cross_entropy(normal(4, 8).bfloat16(), normal(64, 8), labels, torch.ones(4), torch.empty(4), None)


def test_matrices_that_do_not_belong_together_are_refused(kernels: BlockKernels) -> None:
    hidden, labels, ones = normal(4, 8).bfloat16(), torch.zeros(4).long(), torch.ones(4)
    with pytest.raises(ValueError, match="do not belong together"):
        kernels.cross_entropy(hidden, normal(64, 16), labels, ones, torch.empty(4), None)
    with pytest.raises(TypeError, match=r"must be torch\.bfloat16"):
        kernels.cross_entropy(hidden.float(), normal(64, 8), labels, ones, torch.empty(4), None)
