"""The recipes that come with Hornbook."""

import tomllib
from pathlib import Path

import pytest

from hornbook.recipe import load_recipe, recipe_to_toml

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))


def test_all_the_promised_recipes_are_there() -> None:
    names = {path.stem for path in RECIPES}
    assert names >= {"quickstart", "storyworld", "tinystories", "gpt2-124m", "llama-1b"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_valid_and_named_after_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_survives_being_spelled_out(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    (tmp_path / "resolved.toml").write_text(recipe_to_toml(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "resolved.toml") == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert tomllib.loads(text)["description"]


def test_the_recipes_for_two_cores_need_no_network(recipes_directory: Path) -> None:
    for name in ("quickstart", "storyworld"):
        assert load_recipe(recipes_directory / f"{name}.toml").corpus.source == ("storyworld",)
