"""A model with its products made fast gives the scores of the plain one."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hornbook.inference import fast_model
from hornbook.inference.batch import ContinuousBatch, Request
from hornbook.inference.fast_linear import int8_rows
from hornbook.inference.fast_model import FastTransformer
from hornbook.inference.kernels.library import load_kernels
from hornbook.model.transformer import Transformer

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"preset": "gpt2"},
    "llama, tied": {"preset": "llama", "n_kv_heads": 2, "tie_embeddings": True},
    "qwen3": {"preset": "qwen3", "n_kv_heads": 2, "tie_embeddings": False},
}


@pytest.mark.parametrize("shape", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("has_compiler", [True, False])
def test_a_fast_model_gives_the_scores_of_the_plain_one(
    has_compiler: bool,
    shape: dict[str, Any],
    make_model: Callable[..., Transformer],
    monkeypatch: pytest.MonkeyPatch,
):
    if not has_compiler:
        monkeypatch.setattr(fast_model, "load_kernels", lambda: None)
    model = make_model(**shape)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    with torch.inference_mode():
        expected = model.logits(model(ids))
        fast = FastTransformer.of(copy.deepcopy(model))
        torch.testing.assert_close(fast.logits(fast(ids)), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fast.head_weight, model.head_weight)


@pytest.mark.parametrize("shape", FAMILIES.values(), ids=FAMILIES)
def test_int8_scores_are_those_of_the_rounded_weights(shape: dict[str, Any], make_model: Callable[..., Transformer]):
    if load_kernels() is None:
        pytest.skip("no C compiler here")
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


@pytest.mark.parametrize("shape", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.parametrize("n_times", [1, 4])
def test_a_fast_model_in_bfloat16_writes_what_its_weights_say(
    n_times: int, n_rows: int, shape: dict[str, Any], make_model: Callable[..., Transformer]
):
    """Step by step over the cache, against the same rounded weights in float32."""
    rounded = make_model(**shape).bfloat16()
    exact = copy.deepcopy(rounded).float()
    batch = ContinuousBatch(FastTransformer.of(rounded), n_rows, capacity_tokens=48)
    # Short prompts, whose products are few enough for the kernels, or long ones, which torch reads.
    prompts = [(n_times * [3, 1, 4, 1, 5, 9, 2, 6])[row:] for row in range(n_rows)]
    requests = [Request(prompt, 12, n_alternatives=3) for prompt in prompts]
    for request in requests:
        batch.submit(request)
    while batch.n_active or batch.n_waiting:
        for produced in batch.step():
            text = [*produced.request.prompt, *produced.request.tokens[:-1]]
            with torch.inference_mode():
                expected = exact.logits(exact(torch.tensor([text])))[0, -1].log_softmax(-1)
            assert produced.log_probability == pytest.approx(expected[produced.token].item(), abs=0.15)
    assert all(len(request.tokens) == 12 for request in requests)
