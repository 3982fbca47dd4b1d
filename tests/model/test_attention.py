import pytest
import torch

from hornbook.model.attention import (
    attend,
    causal_mask,
    document_mask,
    fused_attention,
    reference_attention,
)
from hornbook.runtime import torch_generator

HEADS = pytest.mark.parametrize("n_kv_heads", [4, 2, 1], ids=["multi-head", "grouped-query", "multi-query"])
DOCUMENT_IDS = torch.tensor([[0] * 5 + [1] * 7 + [2] * 4, [0] * 16])


def query_key_value(n_kv_heads: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch_generator("query, key and value")
    heads = (4, n_kv_heads, n_kv_heads)
    return [torch.randn(2, n, 16, 8, generator=generator).to(dtype).requires_grad_() for n in heads]


def gradients(output: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    upstream = torch.randn(output.shape, generator=torch_generator("upstream"))
    return torch.autograd.grad((output.float() * upstream).sum(), inputs)


def test_the_reference_is_the_mean_of_the_values_where_all_keys_are_the_same():
    q, k = torch.randn(1, 1, 3, 4), torch.ones(1, 1, 3, 4)
    v = torch.tensor([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]])[None, None]
    means = torch.tensor([[1.0, 10.0], [1.5, 15.0], [3.0, 30.0]])[None, None]
    torch.testing.assert_close(reference_attention(q, k, v, causal_mask(3, torch.device("cpu"))), means)


def test_the_reference_divides_the_scores_by_the_root_of_the_head_dim():
    q = torch.tensor([2.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4)
    k = torch.tensor([[3.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])[None, None]
    v = torch.tensor([[1.0], [0.0]])[None, None]
    sees_both = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    # The scores 6 and 2 become 3 and 1.
    torch.testing.assert_close(reference_attention(q, k, v, sees_both).squeeze(), torch.tensor(2.0).sigmoid())


@HEADS
def test_fused_causal_attention_equals_the_reference_forward_and_backward(n_kv_heads: int):
    inputs = query_key_value(n_kv_heads)
    fused = fused_attention(*inputs, None)
    reference = reference_attention(*inputs, causal_mask(16, torch.device("cpu")))
    torch.testing.assert_close(fused, reference)
    torch.testing.assert_close(gradients(fused, inputs), gradients(reference, inputs))


@HEADS
def test_fused_masked_attention_equals_the_reference_forward_and_backward(n_kv_heads: int):
    inputs, mask = query_key_value(n_kv_heads), document_mask(DOCUMENT_IDS)
    fused, reference = fused_attention(*inputs, mask), reference_attention(*inputs, mask)
    torch.testing.assert_close(fused, reference)
    torch.testing.assert_close(gradients(fused, inputs), gradients(reference, inputs))


def test_the_last_token_alone_sees_all_the_others():
    q, k, v = query_key_value(2)
    whole, last = attend(q, k, v, None), attend(q[:, :, -1:], k, v, None)
    torch.testing.assert_close(last, whole[:, :, -1:])


def test_a_token_sees_itself_and_what_stands_before_it_in_its_document():
    mask = document_mask(torch.tensor([[0, 0, 1, 1, 1]]))
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    assert mask.shape == (1, 1, 5, 5)
    assert mask[0, 0].int().tolist() == expected


def test_a_sliding_window_shows_the_last_tokens_alone():
    mask = document_mask(torch.tensor([[0, 0, 0, 1, 1]]), window_tokens=2)
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    assert mask[0, 0].int().tolist() == expected
