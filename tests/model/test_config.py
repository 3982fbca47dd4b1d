import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.model.config import config_from_recipe, swiglu_width
from hornbook.recipe_data import ModelSection, RopeScalingSection


def test_the_presets_pick_the_parts_of_their_models():
    gpt2 = config_from_recipe(ModelSection(preset="gpt2"), 100)
    assert (gpt2.norm, gpt2.positions, gpt2.activation, gpt2.qk_norm) == ("layernorm", "learned", "gelu", False)
    assert (gpt2.attention_bias, gpt2.mlp_bias) == (True, True)
    llama = config_from_recipe(ModelSection(preset="llama"), 100)
    assert (llama.norm, llama.positions, llama.activation, llama.qk_norm) == ("rmsnorm", "rotary", "swiglu", False)
    assert (llama.attention_bias, llama.mlp_bias) == (False, False)
    assert config_from_recipe(ModelSection(preset="qwen3"), 100).qk_norm


def test_llama3_is_llama_with_the_longer_wavelengths_of_its_paper():
    llama, llama3 = (config_from_recipe(ModelSection(preset=preset), 100) for preset in ("llama", "llama3"))
    assert (llama.rope_theta, llama3.rope_theta) == (10_000.0, 500_000.0)
    assert replace(llama3, rope_theta=10_000.0) == llama


def test_a_sliding_window_leaves_every_nth_layer_its_full_view():
    section = ModelSection(preset="qwen3", n_layers=5, sliding_window=8, full_attention_every=2)
    assert config_from_recipe(section, 100).window_tokens == (8, None, 8, None, 8)
    assert config_from_recipe(ModelSection(n_layers=3), 100).window_tokens == (None, None, None)


def test_what_the_recipe_leaves_out_follows_from_the_preset():
    gpt2 = config_from_recipe(ModelSection(preset="gpt2", d_model=96, n_heads=3), 100)
    assert (gpt2.d_ff, gpt2.head_dim, gpt2.n_kv_heads) == (384, 32, 3)
    assert config_from_recipe(ModelSection(preset="llama", d_model=96, n_heads=3), 100).d_ff == 256


def test_what_the_recipe_says_is_kept():
    config = config_from_recipe(ModelSection(n_heads=4, n_kv_heads=2, head_dim=64, d_ff=100, rope_theta=5e5), 77)
    assert (config.n_kv_heads, config.head_dim, config.d_ff, config.rope_theta, config.vocab_size) == (
        2,
        64,
        100,
        5e5,
        77,
    )


@pytest.mark.parametrize(("d_model", "width"), [(24, 64), (25, 128), (128, 384), (384, 1024), (768, 2048)])
def test_the_swiglu_width_is_eight_thirds_rounded_up_to_a_multiple_of_64(d_model: int, width: int):
    assert swiglu_width(d_model) == width


@pytest.mark.parametrize(
    ("preset", "field"),
    [
        ("gpt2", {"n_kv_heads": 2}),
        ("gpt2", {"head_dim": 16}),
        ("gpt2", {"attention_bias": False}),
        ("gpt2", {"mlp_bias": False}),
        ("gpt2", {"rope_scaling": RopeScalingSection()}),
        ("gpt2", {"sliding_window": 8}),
        ("llama3", {"sliding_window": 8}),
        ("qwen3", {"mlp_bias": True}),
    ],
)
def test_a_preset_refuses_what_its_layout_cannot_hold(preset: str, field: dict[str, Any]):
    (name,) = field
    with pytest.raises(UserError, match=rf"model\.{name} is .* the preset {preset} needs"):
        config_from_recipe(ModelSection(preset=preset, d_model=128, n_heads=4, **field), 100)


def test_a_plan_can_read_a_models_shape_without_torch():
    code = "import sys, hornbook.model.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
