"""Published sets of quality rules, by the names of their thresholds in the recipe."""

from collections.abc import Iterable
from typing import Any

# Gopher's rules in short, as far as they make sense for texts of a few sentences. A mark counts as a word
# without a letter, and dialogue has many marks.
BASIC: dict[str, Any] = {
    "min_words": 5,
    "max_words": 100_000,
    "min_mean_word_length": 2.5,
    "max_mean_word_length": 10.0,
    "max_symbol_to_word_ratio": 0.1,
    "min_alphabetic_word_fraction": 0.6,
    "min_stop_words": 2,
    "max_duplicate_line_fraction": 0.3,
}
# Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix A.1.1
# and table A1.
GOPHER: dict[str, Any] = {
    "min_words": 50,
    "max_words": 100_000,
    "min_mean_word_length": 3.0,
    "max_mean_word_length": 10.0,
    "max_symbol_to_word_ratio": 0.1,
    "max_bullet_line_fraction": 0.9,
    "max_ellipsis_line_fraction": 0.3,
    "min_alphabetic_word_fraction": 0.8,
    "min_stop_words": 2,
    "max_duplicate_line_fraction": 0.3,
    "max_duplicate_line_character_fraction": 0.2,
    "max_duplicate_paragraph_fraction": 0.3,
    "max_duplicate_paragraph_character_fraction": 0.2,
    "max_top_2gram_character_fraction": 0.2,
    "max_top_3gram_character_fraction": 0.18,
    "max_top_4gram_character_fraction": 0.16,
    "max_duplicate_5gram_character_fraction": 0.15,
    "max_duplicate_6gram_character_fraction": 0.14,
    "max_duplicate_7gram_character_fraction": 0.13,
    "max_duplicate_8gram_character_fraction": 0.12,
    "max_duplicate_9gram_character_fraction": 0.11,
    "max_duplicate_10gram_character_fraction": 0.1,
}
# Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
# section 2.2; the longest word from its published code.
C4: dict[str, Any] = {
    "c4_edit": "lines",
    "c4_line_end": "punctuation",
    "c4_min_line_words": 3,
    "c4_max_line_word_length": 1000,
    "min_sentences": 5,
    "max_curly_brackets": 0,
    "max_lorem_ipsum": 0,
}
# Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale", section 3.6;
# newlines for each word from its published code.
FINEWEB: dict[str, Any] = {
    "min_punctuated_line_fraction": 0.12,
    "max_short_line_fraction": 0.67,
    "max_repeated_line_character_fraction": 0.01,
    "max_newline_to_word_ratio": 0.3,
}
PRESETS = {"basic": BASIC, "gopher": GOPHER, "c4": C4, "fineweb": FINEWEB}


def with_presets(given: Any) -> Any:
    """The fields that a recipe gives, over those of its presets, a later preset over an earlier one.

    What is no table, or names no preset, is left to be reported by the recipe's own validation.
    """
    if not isinstance(given, dict):
        return given
    names = given.get("preset", "basic")
    if isinstance(names, str) or not isinstance(names, Iterable):
        names = (names,)
    table: dict[str, Any] = {}
    for name in names:
        table |= PRESETS.get(name, {}) if isinstance(name, str) else {}
    return table | given
