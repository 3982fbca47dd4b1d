"""One number gives a whole run its size, and what is set by hand stays."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hornbook.depth import settings_of
from hornbook.errors import UserError
from hornbook.model.config import config_from_recipe
from hornbook.planning.flops import flops_per_token, parameters_by_part
from hornbook.recipe import load_recipe, recipe_to_toml

WriteRecipe = Callable[..., Path]


def test_the_depth_alone_is_a_whole_recipe(write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe("[model]\ndepth = 12\n[tokenizer]\nvocab_size = 32_768\n"))
    model, pretrain = recipe.model, recipe.pretrain
    assert (model.n_layers, model.d_model, model.n_heads, model.max_seq_len) == (12, 768, 12, 1024)
    assert pretrain is not None
    # 85M weights in blocks and 25M in the embedding, 20 tokens each; Step Law by hand: 0.0029 and 123 thousand.
    assert pretrain.tokens == pytest.approx(2.2e9, rel=0.01)
    assert (pretrain.global_batch_tokens, pretrain.lr, pretrain.muon_lr) == (131_072, 0.0029, 0.02)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8, 13, 21, 34, 55])
@pytest.mark.parametrize("preset", ["gpt2", "llama3", "qwen3"])
def test_every_depth_makes_a_valid_and_compute_optimal_recipe(
    depth: int, preset: str, write_recipe: WriteRecipe
) -> None:
    recipe = load_recipe(write_recipe(f'[model]\ndepth = {depth}\npreset = "{preset}"\n'))
    config = config_from_recipe(recipe.model, recipe.tokenizer.vocab_size)
    assert config.head_dim == 64
    assert recipe.pretrain is not None
    per_parameter = recipe.pretrain.tokens / sum(parameters_by_part(config).values())
    assert 18 < per_parameter < 22
    costs = flops_per_token(config, config.max_seq_len)
    assert costs.attention_forward < costs.forward / 2.9


def test_deeper_is_wider_longer_and_slower() -> None:
    small, large = (settings_of({"depth": depth}, {}, 32_768) for depth in (8, 24))
    for section, name in (("model", "d_model"), ("pretrain", "tokens"), ("pretrain", "global_batch_tokens")):
        assert large[section][name] > small[section][name]
    assert large["pretrain"]["lr"] < small["pretrain"]["lr"]


def test_what_is_set_by_hand_stays_and_the_rest_follows_from_it(write_recipe: WriteRecipe) -> None:
    text = "[model]\ndepth = 4\nd_model = 384\n[pretrain]\nlr = 0.5\nglobal_batch_tokens = 4096\n"
    recipe = load_recipe(write_recipe(text))
    assert (recipe.model.n_layers, recipe.model.d_model, recipe.model.n_heads) == (4, 384, 6)
    assert recipe.pretrain is not None
    assert (recipe.pretrain.lr, recipe.pretrain.global_batch_tokens) == (0.5, 4096)
    by_depth = load_recipe(write_recipe("[model]\ndepth = 4\n")).pretrain
    assert by_depth is not None
    assert recipe.pretrain.tokens > by_depth.tokens


def test_the_dial_turns_on_the_command_line(write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe("[model]\ndepth = 4\n"), {"model.depth": 8})
    assert (recipe.model.n_layers, recipe.model.d_model) == (8, 512)


def test_a_spelled_out_recipe_of_a_depth_is_the_same_recipe(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe("[model]\ndepth = 4\n"))
    (tmp_path / "resolved.toml").write_text(recipe_to_toml(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "resolved.toml") == recipe


@pytest.mark.parametrize("depth", ["0", "-3", '"deep"', "2.5"])
def test_a_depth_that_is_none_is_named(depth: str, write_recipe: WriteRecipe) -> None:
    with pytest.raises(UserError, match=r"model\.depth: must be"):
        load_recipe(write_recipe(f"[model]\ndepth = {depth}\n"))
