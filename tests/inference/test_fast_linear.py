"""Products of few vectors: the numbers of torch's own, from weights of each kind, and the same in any company."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hornbook.inference.fast_linear import FastLinear, FastTransformer, int8_rows
from hornbook.inference.products import Products, load_products
from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"preset": "gpt2"},
    "llama, tied": {"preset": "llama", "n_kv_heads": 2, "tie_embeddings": True},
    "qwen3": {"preset": "qwen3", "n_kv_heads": 2, "tie_embeddings": False},
}


@pytest.fixture(scope="module")
def products() -> Products:
    """The compiled functions; what needs them is skipped where there is no compiler."""
    found = load_products()
    if found is None:
        pytest.skip("no C compiler here")
    return found


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator("products", *shape))


@pytest.mark.parametrize("n_vectors", [1, 2, 3, 7, 33, 100])
@pytest.mark.parametrize(("n_rows", "n_columns"), [(64, 48), (37, 83), (3, 5), (9, 4200)])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_products_are_those_of_float64(products: Products, kind: str, n_rows: int, n_columns: int, n_vectors: int):
    weight, vectors, scales = normal(n_rows, n_columns), normal(n_vectors, n_columns), None
    held = weight.to(getattr(torch, kind)) if kind != "int8" else weight
    as_counted = held.double()
    if kind == "int8":
        held, scales = int8_rows(weight)
        as_counted = held.double() * scales.double()[:, None]
    exact = vectors.double() @ as_counted.T
    # Rounding a vector to 16 bits moves it by at most half of a step of largest / 32767.
    step = vectors.abs().amax(1, keepdim=True).double() / 32767 if kind == "int8" else torch.zeros(n_vectors, 1)
    bound = 0.51 * step * as_counted.abs().sum(1) + 1e-5 * n_columns**0.5
    assert ((products.multiply(held, scales, vectors) - exact).abs() <= bound).all()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_what_a_vector_gets_does_not_depend_on_the_others_to_the_bit(products: Products, kind: str):
    weight, vectors = normal(50, 70), normal(60, 70)
    held, scales = int8_rows(weight) if kind == "int8" else (weight.to(getattr(torch, kind)), None)
    together = products.multiply(held, scales, vectors)
    for size in (1, 2, 5):
        apart = torch.cat([products.multiply(held, scales, part) for part in vectors.split(size)])
        assert torch.equal(apart, together)


def test_the_largest_weights_and_vectors_do_not_overflow(products: Products):
    weight, vectors = torch.ones(8, 8192), torch.full((1, 8192), -3.0)
    held, scales = int8_rows(weight)
    assert products.multiply(held, scales, vectors)[0].tolist() == pytest.approx([-3.0 * 8192] * 8, rel=1e-6)


def test_rows_of_zeros_and_vectors_of_zeros_give_zeros(products: Products):
    held, scales = int8_rows(torch.zeros(9, 40))
    assert not products.multiply(held, scales, normal(2, 40)).any()
    held, scales = int8_rows(normal(9, 40))
    assert not products.multiply(held, scales, torch.zeros(2, 40)).any()


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


@pytest.mark.parametrize("shape", FAMILIES.values(), ids=FAMILIES)
def test_a_fast_model_gives_the_scores_of_the_plain_one(shape: dict[str, Any], make_model: Callable[..., Transformer]):
    model = make_model(**shape)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    with torch.inference_mode():
        expected = model.logits(model(ids))
        fast = FastTransformer.of(copy.deepcopy(model))
        torch.testing.assert_close(fast.logits(fast(ids)), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fast.head_weight, model.head_weight)


@pytest.mark.parametrize("shape", FAMILIES.values(), ids=FAMILIES)
def test_int8_scores_are_those_of_the_rounded_weights(
    products: Products, shape: dict[str, Any], make_model: Callable[..., Transformer]
):
    model = make_model(**shape)
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for layer in rounded.modules():
            if isinstance(layer, torch.nn.Linear):
                integers, scales = int8_rows(layer.weight)
                layer.weight.copy_(integers * scales[:, None])
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    fast = FastTransformer.of(copy.deepcopy(model), is_int8=True)
    with torch.inference_mode():
        hidden = rounded(ids)
        torch.testing.assert_close(fast(ids), hidden, rtol=2e-3, atol=2e-3)
        expected = F.linear(fast(ids), fast.head_weight)
        torch.testing.assert_close(fast.logits(fast(ids)), expected, rtol=1e-3, atol=1e-3)
    assert fast.head.weight.dtype == torch.int8


def test_without_a_compiler_int8_gives_the_same_answers_from_float_weights():
    weight, vectors = normal(12, 20), normal(3, 20)
    integers, scales = int8_rows(weight)
    plain = FastLinear(weight, None, None, is_int8=True)
    assert not plain.is_fast
    torch.testing.assert_close(plain(vectors), vectors @ (integers * scales[:, None]).T)


def test_a_compiler_that_is_not_there_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert load_products() is None


def test_the_library_is_built_once(products: Products, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert load_products() is not None
    monkeypatch.setenv("CC", "no-such-compiler")
    assert load_products() is not None
    assert len(list((tmp_path / "hornbook").iterdir())) == 1
