import subprocess
import sys

import pytest

from hornbook.errors import UserError
from hornbook.model.config import config_from_recipe, swiglu_width
from hornbook.recipe import ModelSection


def test_the_presets_pick_the_parts_of_their_models():
    gpt2 = config_from_recipe(ModelSection(preset="gpt2"), 100)
    assert (gpt2.norm, gpt2.positions, gpt2.activation, gpt2.bias, gpt2.qk_norm) == (
        "layernorm",
        "learned",
        "gelu",
        True,
        False,
    )
    llama = config_from_recipe(ModelSection(preset="llama"), 100)
    assert (llama.norm, llama.positions, llama.activation, llama.bias, llama.qk_norm) == (
        "rmsnorm",
        "rotary",
        "swiglu",
        False,
        False,
    )
    assert config_from_recipe(ModelSection(preset="qwen3"), 100).qk_norm


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


@pytest.mark.parametrize("field", [{"n_kv_heads": 2}, {"head_dim": 16}])
def test_gpt2_refuses_what_its_layout_cannot_hold(field: dict[str, int]):
    (name,) = field
    with pytest.raises(UserError, match=f"model.{name} is .* gpt2 .* llama"):
        config_from_recipe(ModelSection(preset="gpt2", d_model=128, n_heads=4, **field), 100)


def test_a_plan_can_read_a_models_shape_without_torch():
    code = "import sys, hornbook.model.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
