import math
from collections.abc import Callable

import pytest
import torch

from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer


@pytest.mark.parametrize("preset", ["gpt2", "llama", "qwen3"])
def test_every_weight_starts_as_the_table_says(preset: str, make_model: Callable[..., Transformer]):
    model = make_model(preset=preset, d_model=64, n_layers=8, tie_embeddings=False)
    init_weights(model, seed=1)
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (weight == 1).all(), name
        elif name.endswith(".bias"):
            assert (weight == 0).all(), name
        else:
            expected = _standard_deviation(name, n_inputs=weight.shape[1], n_layers=8)
            assert weight.std().item() == pytest.approx(expected, rel=0.1), name
            assert abs(weight.mean().item()) < 0.1 * expected, name


def _standard_deviation(name: str, n_inputs: int, n_layers: int) -> float:
    if name.endswith("embed_positions.weight"):
        return 0.02
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return 1 / math.sqrt(n_inputs) / math.sqrt(2 * n_layers)
    return 1 / math.sqrt(n_inputs)


def test_the_vector_of_a_token_starts_with_a_length_of_about_one(make_model: Callable[..., Transformer]):
    model = make_model(d_model=256)
    init_weights(model, seed=1)
    lengths = model.model.embed_tokens.weight.norm(dim=1)
    assert lengths.min() > 0.8
    assert lengths.max() < 1.2


def test_a_weight_starts_the_same_whatever_else_the_model_has(make_model: Callable[..., Transformer]):
    small, large = make_model(n_layers=1), make_model(n_layers=3, tie_embeddings=False)
    torch.manual_seed(1)
    init_weights(small, seed=5)
    torch.manual_seed(2)
    init_weights(large, seed=5)
    starts = large.state_dict()
    same = [name for name, weight in small.state_dict().items() if torch.equal(weight, starts[name])]
    scaled_by_depth = ("o_proj.weight", "down_proj.weight")
    assert same == [name for name in small.state_dict() if not name.endswith(scaled_by_depth)]


def test_another_seed_or_another_name_gives_another_start(make_model: Callable[..., Transformer]):
    model = make_model()
    init_weights(model, seed=1)
    query, key = (model.model.layers[0].self_attn.get_parameter(f"{name}_proj.weight") for name in "qk")
    assert not torch.equal(query, key)
    first = query.clone()
    init_weights(model, seed=2)
    assert not torch.equal(query, first)


def test_the_global_random_state_is_left_alone(make_model: Callable[..., Transformer]):
    model = make_model()
    before = torch.get_rng_state()
    init_weights(model, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
