"""Sets of published rules are switched on by one word of the recipe, and give way to what the recipe says itself."""

import pytest

from hornbook.errors import UserError
from hornbook.filter_presets import PRESETS
from hornbook.recipe import load_recipe, recipe_to_toml
from hornbook.recipe_data import FilterSection


def test_published_sets_have_the_published_thresholds():
    gopher, c4, fineweb = (FilterSection(preset=name) for name in ("gopher", "c4", "fineweb"))
    # Rae et al. 2021, A.1.1
    assert (gopher.min_words, gopher.max_words) == (50, 100_000)
    assert (gopher.min_mean_word_length, gopher.max_mean_word_length) == (3, 10)
    assert (gopher.max_symbol_to_word_ratio, gopher.max_bullet_line_fraction) == (0.1, 0.9)
    assert (gopher.max_ellipsis_line_fraction, gopher.min_alphabetic_word_fraction) == (0.3, 0.8)
    assert gopher.min_stop_words == 2
    # table A1
    assert (gopher.max_duplicate_line_fraction, gopher.max_duplicate_paragraph_fraction) == (0.3, 0.3)
    assert gopher.max_duplicate_line_character_fraction == gopher.max_duplicate_paragraph_character_fraction == 0.2
    assert [getattr(gopher, f"max_top_{n}gram_character_fraction") for n in (2, 3, 4)] == [0.2, 0.18, 0.16]
    duplicate = [getattr(gopher, f"max_duplicate_{n}gram_character_fraction") for n in range(5, 11)]
    assert duplicate == [0.15, 0.14, 0.13, 0.12, 0.11, 0.1]
    # Raffel et al. 2020, 2.2, and c4_utils.py
    assert (c4.c4_edit, c4.c4_line_end, c4.c4_min_line_words) == ("lines", "punctuation", 3)
    assert (c4.c4_max_line_word_length, c4.min_sentences) == (1000, 5)
    assert (c4.max_curly_brackets, c4.max_lorem_ipsum) == (0, 0)
    # Penedo et al. 2024, 3.6
    assert (fineweb.min_punctuated_line_fraction, fineweb.max_short_line_fraction) == (0.12, 0.67)
    assert (fineweb.max_repeated_line_character_fraction, fineweb.max_newline_to_word_ratio) == (0.01, 0.3)


def test_a_preset_sets_its_own_rules_and_no_others():
    for name, fields in PRESETS.items():
        section = FilterSection(preset=name)
        are_set = {field: value for field, value in section if value is not None and field != "preset"}
        assert are_set == fields
    assert FilterSection() == FilterSection(preset="basic")
    assert all(value is None for field, value in FilterSection(preset="none") if field != "preset")


def test_presets_add_up_and_what_is_given_wins():
    section = FilterSection(preset=["basic", "gopher", "fineweb"], min_words=20, max_short_line_fraction="off")
    assert section.min_words == 20
    assert section.min_mean_word_length == 3.0
    assert section.max_short_line_fraction is None
    assert section.max_newline_to_word_ratio == 0.3
    assert section.min_sentences is None


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"preset": "none"},
        {"preset": ["gopher", "c4"]},
        {"preset": "gopher", "max_top_2gram_character_fraction": "off", "min_words": 7},
        {"preset": "c4", "c4_edit": "off", "language": "de"},
        {"min_words": "off"},
    ],
)
def test_a_recipe_spelled_out_is_the_same_recipe(write_recipe, tmp_path, filters):
    recipe = load_recipe(write_recipe(), {f"corpus.filters.{field}": value for field, value in filters.items()})
    spelled_out = tmp_path / "spelled-out.toml"
    spelled_out.write_text(recipe_to_toml(recipe), encoding="utf-8")
    assert load_recipe(spelled_out) == recipe
    assert "max_top_2gram_character_fraction = " in spelled_out.read_text(encoding="utf-8")


def test_a_flag_for_the_preset_leaves_what_the_recipe_gives(write_recipe):
    rest = "[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\n[corpus.filters]\nmin_words = 9\n"
    filters = load_recipe(write_recipe(rest), {"corpus.filters.preset": ["gopher"]}).corpus.filters
    assert (filters.min_words, filters.min_stop_words, filters.max_bullet_line_fraction) == (9, 2, 0.9)


@pytest.mark.parametrize("preset", ["gophr", ["gopher", "see4"], 3, [3]])
def test_an_unknown_preset_is_named(write_recipe, preset):
    with pytest.raises(UserError, match=r"corpus\.filters\.preset"):
        load_recipe(write_recipe(), {"corpus.filters.preset": preset})


def test_problems_beside_the_preset_are_reported_too(write_recipe):
    with pytest.raises(UserError, match=r"(?s)min_word: .*did you mean corpus\.filters\.min_words"):
        load_recipe(write_recipe(), {"corpus.filters.preset": "gopher", "corpus.filters.min_word": 3})
