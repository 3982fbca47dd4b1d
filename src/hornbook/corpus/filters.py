"""Quality rules: named properties that a text must have, each with its threshold in the recipe.

The rules are published ones: those of Gopher, C4 and FineWeb, and the language. A document is kept, or
dropped with the names of all the rules that it broke, so that the report can say what each rule costs. What
each rule counts, and where it was published, stands in `hornbook.corpus.rules`.

All rules of a batch of texts are computed in one go, over arrays, so that words and lines are cut once. The
engine's own regular expressions take about as long to cut the words alone.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy
import pyarrow

from hornbook.corpus.engine import load_daft
from hornbook.corpus.rules import c4, fineweb, gopher, repetition
from hornbook.corpus.rules.language import detected_language
from hornbook.corpus.text_batch import TextBatch, text_batches
from hornbook.recipe_data import FilterSection

if TYPE_CHECKING:
    from daft import Expression

Measure = Callable[[TextBatch], numpy.ndarray]

# A rule is named as its threshold in the recipe. Those that begin with min_ are broken by less than it, those
# that begin with max_ by more.
MEASURES: dict[str, Measure] = {
    "min_words": gopher.word_count,
    "max_words": gopher.word_count,
    "min_mean_word_length": gopher.mean_word_length,
    "max_mean_word_length": gopher.mean_word_length,
    "max_symbol_to_word_ratio": gopher.symbol_to_word_ratio,
    "max_bullet_line_fraction": gopher.bullet_line_fraction,
    "max_ellipsis_line_fraction": gopher.ellipsis_line_fraction,
    "min_alphabetic_word_fraction": gopher.alphabetic_word_fraction,
    "min_stop_words": gopher.stop_word_count,
    "max_duplicate_line_fraction": repetition.duplicate_line_fraction,
    "max_duplicate_line_character_fraction": repetition.duplicate_line_character_fraction,
    "max_duplicate_paragraph_fraction": repetition.duplicate_paragraph_fraction,
    "max_duplicate_paragraph_character_fraction": repetition.duplicate_paragraph_character_fraction,
    **{
        f"max_top_{n}gram_character_fraction": partial(repetition.top_ngram_character_fraction, n=n)
        for n in range(2, 5)
    },
    **{
        f"max_duplicate_{n}gram_character_fraction": partial(repetition.duplicate_ngram_character_fraction, n=n)
        for n in range(5, 11)
    },
    "min_sentences": c4.sentence_count,
    "max_curly_brackets": c4.curly_bracket_count,
    "max_lorem_ipsum": c4.lorem_ipsum_count,
    "min_punctuated_line_fraction": fineweb.punctuated_line_fraction,
    "max_short_line_fraction": fineweb.short_line_fraction,
    "max_repeated_line_character_fraction": fineweb.repeated_line_character_fraction,
    "max_newline_to_word_ratio": fineweb.newline_to_word_ratio,
}


def broken_rules(text: "Expression", section: FilterSection) -> "Expression":
    """The names of the rules that each text breaks, as a list of strings; empty for a text to keep.

    Args:
        text: string column of cleaned texts; a null counts as an empty text.
        section: thresholds; a rule's name is that of its threshold, and where this is None it is not applied.
    """
    daft = load_daft()

    @daft.func.batch(return_dtype=daft.DataType.list(daft.DataType.string()))
    def broken_rules_of_batch(texts):  # type: ignore[no-untyped-def]
        return rules_broken_by(texts.to_arrow(), section)

    return broken_rules_of_batch(text)


def edit_lines(text: "Expression", section: FilterSection) -> "Expression":
    """The texts without the lines that C4 leaves out, where the recipe wants that; else as they are."""
    edit = line_editor(section)
    if edit is None:
        return text
    daft = load_daft()

    @daft.func.batch(return_dtype=daft.DataType.string())
    def edit_batch(texts):  # type: ignore[no-untyped-def]
        return [None if text is None else edit(text) for text in texts.to_pylist()]

    return edit_batch(text)


def line_editor(section: FilterSection) -> Callable[[str], str] | None:
    """What `edit_lines` does to one text, or None if the recipe wants no editing."""
    if section.c4_edit is None:
        return None
    return partial(
        c4.edit_text,
        unit=section.c4_edit,
        ends_with_punctuation=section.c4_line_end is not None,
        min_words=section.c4_min_line_words,
        max_word_length=section.c4_max_line_word_length,
    )


def rules_broken_by(texts: pyarrow.Array, section: FilterSection) -> pyarrow.Array:
    """What `broken_rules` says, for an array of texts."""
    thresholds = {name: getattr(section, name) for name in MEASURES}
    thresholds = {name: threshold for name, threshold in thresholds.items() if threshold is not None}
    names = pyarrow.array([*thresholds, "language"], pyarrow.string())
    parts = [numpy.zeros((0, len(names)), bool)]
    for batch in text_batches(texts):
        broken = numpy.zeros((len(batch.texts), len(names)), bool)
        for column, (name, threshold) in enumerate(thresholds.items()):
            measure = MEASURES[name](batch)
            broken[:, column] = measure < threshold if name.startswith("min_") else measure > threshold
        if section.language is not None:
            broken[:, -1] = detected_language(batch) != section.language
        parts.append(broken)
    broken = numpy.concatenate(parts)
    offsets = numpy.append(0, numpy.cumsum(broken.sum(axis=1))).astype(numpy.int32)
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), names.take(pyarrow.array(broken.nonzero()[1])))
