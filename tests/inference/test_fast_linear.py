"""Linear layers with int8 weights, and with many vectors at a time."""

import pytest
import torch
import torch.nn.functional as F

from hornbook.inference.fast_linear import FastLinear, int8_rows
from hornbook.runtime import torch_generator


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator("kernels", *shape))


def test_many_vectors_in_bfloat16_are_multiplied_in_few_lengths(monkeypatch: pytest.MonkeyPatch):
    linear = FastLinear(normal(24, 16).bfloat16(), normal(24).bfloat16(), None, is_int8=False)
    lengths = set()
    plain = F.linear

    def watched(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        lengths.add(len(x))
        return plain(x, *others)

    vectors = normal(1, 2000, 16).bfloat16()
    whole = plain(vectors, linear.weight, linear.bias)
    monkeypatch.setattr(F, "linear", watched)
    for n_vectors in range(1, 2001, 7):
        torch.testing.assert_close(linear(vectors[:, :n_vectors]), whole[:, :n_vectors], rtol=0.02, atol=0.02)
    assert max(lengths) <= 2048
    assert len(lengths) < 30


def test_int8_is_off_by_at_most_half_a_step():
    weight = normal(20, 33)
    integers, scales = int8_rows(weight)
    assert integers.abs().amax(1).tolist() == [127] * 20
    assert ((integers * scales[:, None] - weight).abs() <= 0.5001 * scales[:, None]).all()


def test_without_a_compiler_int8_gives_the_same_answers_from_float_weights():
    weight, vectors = normal(12, 20), normal(3, 20)
    integers, scales = int8_rows(weight)
    plain = FastLinear(weight, None, None, is_int8=True)
    assert not plain.is_fast
    torch.testing.assert_close(plain(vectors), vectors @ (integers * scales[:, None]).T)
