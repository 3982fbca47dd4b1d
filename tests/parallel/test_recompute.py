"""Layers that compute twice: the same gradients, from less that is kept."""

from collections.abc import Callable

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from hornbook.batching.packing import Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.compiled import CompiledLayers
from hornbook.parallel.recompute import Recompute, recomputed
from hornbook.recipe_data import ModelSection

N_ROWS, ROW_TOKENS, VOCAB_SIZE = 4, 32, 61


def _model(preset: str) -> Transformer:
    section = ModelSection(preset=preset, n_layers=2, d_model=32, n_heads=4, max_seq_len=ROW_TOKENS)
    model = Transformer(config_from_recipe(section, VOCAB_SIZE))
    init_weights(model, seed=0)
    return model


def _batch() -> Batch:
    ids = torch.randint(0, VOCAB_SIZE, (N_ROWS, ROW_TOKENS + 1), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(ROW_TOKENS).repeat(N_ROWS, 1)
    return Batch(ids[:, :-1], ids[:, 1:], positions, (positions > 11).long())


def _gradients(model: Transformer, what: Recompute, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    model.zero_grad()
    with recomputed(model.model.layers, what), torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        NextToken().loss_sum(model, _batch())[0].backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def _flops(model: Transformer, what: Recompute) -> int:
    """Those of the matrix products of one forward and backward pass."""
    with FlopCounterMode(display=False) as counter:
        _gradients(model, what)
    return counter.get_total_flops()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("preset", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("what", ["selective", "full"])
def test_the_gradients_are_the_same_bit_for_bit(what: Recompute, preset: str, dtype: torch.dtype) -> None:
    model = _model(preset)
    names = list(model.state_dict())

    plain, twice = _gradients(model, "none", dtype), _gradients(model, what, dtype)

    assert all(torch.equal(one, other) for one, other in zip(plain, twice, strict=True))
    assert list(model.state_dict()) == names
    assert all("forward" not in vars(layer) for layer in model.model.layers)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["none", "selective", "full"])
def test_all_that_a_loss_computes_is_one_graph_whose_gradients_are_those_of_plain_code(
    what: Recompute, backend: str
) -> None:
    model = _model("qwen3")
    plain = _gradients(model, "none")
    model.zero_grad()

    with recomputed(model.model.layers, what):
        loss_sum = torch.compile(NextToken().loss_sum, backend=backend, dynamic=False, fullgraph=True)
        loss_sum(model, _batch())[0].backward()

    for parameter, expected in zip(model.parameters(), plain, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("what", ["none", "selective", "full"])
def test_compiled_gradients_are_those_of_plain_eager_code(what: Recompute) -> None:
    model = _model("qwen3")
    plain = _gradients(model, "none")
    model.zero_grad()
    compiled = CompiledLayers(model, torch.device("cpu"), torch.float32)
    counters.clear()

    with recomputed(model.model.layers, what):
        with compiled.attached():
            NextToken().loss_sum(model, _batch())[0].backward()
        assert ("forward" in model.model.layers[0].__dict__) == (what != "none")
        with compiled.attached():  # as in each step
            NextToken().loss_sum(model, _batch())[0]

    assert counters["stats"]["unique_graphs"] == 1  # of all layers, in both steps

    for parameter, expected in zip(model.parameters(), plain, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - expected).norm() < 1e-5 * expected.norm()


def test_selective_recomputation_repeats_no_product() -> None:
    model = _model("llama")
    none, selective, full = (_flops(model, what) for what in ("none", "selective", "full"))

    assert none == selective < full


def test_each_keeps_less_than_the_one_before(kept_bytes: Callable[[Transformer, Recompute], int]) -> None:
    model = _model("llama")
    none, selective, full = (kept_bytes(model, what) for what in ("none", "selective", "full"))

    assert full < selective < none


@pytest.fixture
def kept_bytes() -> Callable[[Transformer, Recompute], int]:
    """What is still allocated after a forward pass, by torch's own profiler."""

    def measure(model: Transformer, what: Recompute) -> int:
        with (
            recomputed(model.model.layers, what),
            torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
        ):
            batch = _batch()
            hidden = model(batch.input_ids, batch.position_ids, batch.document_ids)
        del hidden
        return sum(event.self_cpu_memory_usage for event in profile.key_averages())

    return measure
