from typing import Any, Literal

import pytest
import torch

from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.model.rotary import query_key_factor, rotary_angles, rotary_frequencies, rotate
from hornbook.recipe_data import ModelSection, RopeScalingSection
from hornbook.runtime import torch_generator

CPU = torch.device("cpu")


def with_heads_of(head_dim: int, **fields: Any) -> ModelConfig:
    return config_from_recipe(ModelSection(head_dim=head_dim, **fields), vocab_size=10)


def turned(vector_E: torch.Tensor, position: int) -> torch.Tensor:
    angles = rotary_angles(torch.tensor([[position]]), with_heads_of(len(vector_E)))
    return rotate(vector_E.view(1, 1, 1, -1), *angles).flatten()


def test_a_product_depends_on_the_distance_of_two_positions_alone():
    q, k = torch.randn(2, 16, generator=torch_generator("q and k"))
    near, far_along = turned(q, 3) @ turned(k, 1), turned(q, 203) @ turned(k, 201)
    torch.testing.assert_close(near, far_along, rtol=0, atol=1e-4)
    assert not torch.isclose(near, turned(q, 4) @ turned(k, 1), atol=1e-2)


def test_the_first_position_turns_nothing_and_no_position_changes_a_length():
    vector = torch.randn(16, generator=torch_generator("vector"))
    torch.testing.assert_close(turned(vector, 0), vector)
    torch.testing.assert_close(turned(vector, 1000).norm(), vector.norm())


def test_the_first_pair_turns_by_one_radian_a_position():
    vector = torch.tensor([1.0, 0.0, 0.0, 0.0])  # the pairs are the numbers 0 and 2, and 1 and 3
    angle = torch.tensor(5.0)
    torch.testing.assert_close(turned(vector, 5), torch.tensor([angle.cos(), 0.0, angle.sin(), 0.0]))


def test_neighbouring_positions_stay_apart_in_bfloat16():
    vector = torch.ones(16, dtype=torch.bfloat16)
    assert turned(vector, 256).dtype == torch.bfloat16
    assert not torch.equal(turned(vector, 256), turned(vector, 257))


@pytest.mark.parametrize("rule", ["llama3", "yarn"])
def test_stretching_slows_slow_pairs_by_the_factor_and_leaves_fast_ones_alone(rule: Literal["llama3", "yarn"]):
    scaling = RopeScalingSection(type=rule, factor=4.0, original_max_seq_len=2048)
    plain = rotary_frequencies(with_heads_of(64), CPU)
    stretched = rotary_frequencies(with_heads_of(64, rope_scaling=scaling), CPU)
    share = stretched / plain
    turns = 2048 * plain / (2 * torch.pi)
    torch.testing.assert_close(share[turns < 0.9], torch.full_like(share[turns < 0.9], 0.25))
    torch.testing.assert_close(share[turns > 40], torch.ones_like(share[turns > 40]))
    assert (share.diff() <= 1e-6).all()


def test_yarn_lengthens_queries_and_keys_as_its_paper_says():
    assert query_key_factor(None) == query_key_factor(RopeScalingSection(type="llama3", factor=16.0)) == 1.0
    assert query_key_factor(RopeScalingSection(type="yarn", factor=16.0)) == pytest.approx(1.27726, abs=1e-5)
    assert query_key_factor(RopeScalingSection(type="yarn", attention_factor=1.5)) == 1.5
