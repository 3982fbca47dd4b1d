"""Attention in blocks, for training in bfloat16 on a CPU, gives what the formula gives in float64."""

import dataclasses

import pytest
import torch
from torch import Tensor

from hornbook.kernels.blocks import load_blocks
from hornbook.model.attention import (
    attend,
    causal_mask,
    document_mask,
    fused_attention,
    masks_by_window,
    reference_attention,
)
from hornbook.model.block_attention import attention_in_blocks, first_seen_of_documents, mask_of_first_seen
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.recipe_data import ModelSection
from hornbook.runtime import torch_generator

CPU = torch.device("cpu")
needs_blocks = pytest.mark.skipif(load_blocks() is None, reason="no C compiler here, or no bfloat16")


def normal(*shape: int) -> Tensor:
    """(B,H,T,E) as a layer makes them: a token's heads side by side."""
    n_rows, n_heads, n_tokens, head_dim = shape
    numbers = torch.randn(n_rows, n_tokens, n_heads, head_dim, generator=torch_generator("attention", *shape))
    return numbers.bfloat16().transpose(1, 2)


def some_documents(n_rows: int, n_tokens: int) -> Tensor:
    """(B,T): a document of one token, one of a third of the row, and the rest."""
    order = torch.arange(n_tokens)
    return ((order > 0).long() + (order > n_tokens // 3).long()).repeat(n_rows, 1)


def windows(*window_tokens: int | None) -> ModelConfig:
    """A model with a layer of each of these windows."""
    config = config_from_recipe(ModelSection(preset="llama", n_layers=len(window_tokens), d_model=32, n_heads=4), 64)
    return dataclasses.replace(config, window_tokens=window_tokens)


@needs_blocks
@pytest.mark.parametrize("window_tokens", [None, 20])
@pytest.mark.parametrize("n_kv_heads", [4, 2, 1], ids=["multi-head", "grouped-query", "multi-query"])
@pytest.mark.parametrize(("n_tokens", "head_dim"), [(64, 32), (100, 24), (257, 64), (3, 128), (1, 16)])
def test_results_and_gradients_are_those_of_the_formula(
    n_tokens: int, head_dim: int, n_kv_heads: int, window_tokens: int | None
) -> None:
    heads = [normal(2, n, n_tokens, head_dim).requires_grad_() for n in (4, n_kv_heads, n_kv_heads)]
    documents = some_documents(2, n_tokens)
    first_seen = first_seen_of_documents(documents, window_tokens)
    upstream = normal(2, 4, n_tokens, head_dim)

    out = attention_in_blocks(*heads, first_seen)
    gradients = torch.autograd.grad(out, heads, upstream)

    exact = [each.detach().double().requires_grad_() for each in heads]
    expected = reference_attention(*exact, document_mask(documents, window_tokens))
    for ours, right in zip(
        (out, *gradients), (expected, *torch.autograd.grad(expected, exact, upstream.double())), strict=True
    ):
        # Numbers of 8 bits: a few roundings of 2^-9 each.
        assert (ours.double() - right).norm() <= 0.006 * right.norm() + 1e-3


@needs_blocks
def test_other_documents_and_later_tokens_change_no_bit() -> None:
    documents, heads = some_documents(1, 90), [normal(1, 2, 90, 32) for _ in range(3)]
    first_seen = first_seen_of_documents(documents)
    before = attention_in_blocks(*heads, first_seen)
    changed = [each.clone() for each in heads]
    for each in changed:
        each[:, :, :20] += 1  # of the documents before
        each[:, :, 70:] -= 1  # later ones
    assert torch.equal(attention_in_blocks(*changed, first_seen)[:, :, 31:70], before[:, :, 31:70])


@needs_blocks
def test_scores_are_not_rounded_before_they_are_compared() -> None:
    q, k, v = (torch.zeros(1, 1, 2, 64, dtype=torch.bfloat16) for _ in range(3))
    # Scores of 100 and 100.25 before the division by 8: in bfloat16 both would be 100.
    q[..., 0], k[..., 0], k[0, 0, 1, 1], q[..., 1] = 10, 10, 0.5, 0.5
    v[0, 0, 1] = 1
    attended = attention_in_blocks(q, k, v, torch.zeros(1, 2, dtype=torch.int32))
    share = torch.tensor(0.25 / 8).sigmoid().item()
    torch.testing.assert_close(attended[0, 0, 1].float(), torch.full((64,), share), rtol=0.004, atol=0)


@needs_blocks
@pytest.mark.parametrize("has_documents", [False, True])
def test_training_in_bfloat16_takes_it_with_and_without_a_compiler_and_writing_does_not(has_documents: bool) -> None:
    heads = [normal(2, 2, 70, 32).requires_grad_() for _ in range(3)]
    documents = some_documents(2, 70) if has_documents else None
    seen = causal_mask(70, CPU) if documents is None else document_mask(documents)
    with torch.autocast("cpu", torch.bfloat16):
        in_training = masks_by_window(windows(None), 70, CPU, documents)[None]
        plain = attend(*heads, in_training)
        compiled = torch.compile(attend, dynamic=False)(*heads, in_training)
        with torch.no_grad():
            reference = attend(*heads, in_training)  # a reference's probabilities are those of the start
        with_other_mask = attend(*heads, seen)
    written = attend(*heads, masks_by_window(windows(None), 70, CPU, documents)[None])

    assert torch.equal(plain, compiled)
    assert torch.equal(plain, reference)
    assert torch.equal(written, fused_attention(*heads, None if documents is None else seen))
    assert torch.equal(with_other_mask, fused_attention(*heads, seen))
    assert not torch.equal(plain, written)
    torch.testing.assert_close(plain, written, rtol=0.03, atol=0.03)
    upstream = normal(2, 2, 70, 32)
    for ours, theirs in zip(
        torch.autograd.grad(compiled, heads, upstream), torch.autograd.grad(plain, heads, upstream), strict=True
    ):
        assert torch.equal(ours, theirs)


@needs_blocks
def test_shapes_that_do_not_belong_together_are_refused() -> None:
    heads = [normal(2, 2, 37, 32) for _ in range(3)]
    for wrong in ([*heads, torch.zeros(1, 5, dtype=torch.int32)], [heads[0], heads[1][:, :, 1:], heads[2]]):
        first_seen = wrong[3] if len(wrong) == 4 else torch.zeros(1, 37, dtype=torch.int32)
        with pytest.raises((ValueError, RuntimeError), match="belong together"):
            attention_in_blocks(*wrong[:3], first_seen)


def test_what_is_not_in_bfloat16_goes_to_the_fused_kernel_whatever_the_mask() -> None:
    heads, documents = [normal(2, 2, 70, 32).float() for _ in range(3)], some_documents(2, 70)
    first_seen = first_seen_of_documents(documents)
    assert torch.equal(attend(*heads, first_seen), fused_attention(*heads, document_mask(documents)))


@needs_blocks
def test_masks_of_long_rows_stay_truth_values_and_go_to_the_fused_kernel() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        mask = masks_by_window(windows(None), 3000, CPU, torch.zeros(1, 3000))[None]
    assert isinstance(mask, Tensor)
    assert mask.dtype == torch.bool


@needs_blocks
def test_the_first_token_seen_is_that_of_the_mask() -> None:
    documents = some_documents(2, 50)
    with torch.autocast("cpu", torch.bfloat16):
        of_documents = masks_by_window(windows(None, 7), 50, CPU, documents)
        causal = masks_by_window(windows(None, 7), 50, CPU, None)
    for window in (None, 7):
        first_seen, first_of_all = of_documents[window], causal[window]
        assert isinstance(first_seen, Tensor)
        assert isinstance(first_of_all, Tensor)
        assert torch.equal(mask_of_first_seen(first_seen), document_mask(documents, window))
        assert torch.equal(mask_of_first_seen(first_of_all), causal_mask(50, CPU, window))
