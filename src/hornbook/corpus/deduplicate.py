"""Deduplication: of texts that are the same, or nearly the same, the first one stays.

Texts are compared without case, punctuation and blanks. Only 64-bit keys, and digests of signatures on the
disk, are needed, so it is done in one place, and the outcome cannot depend on the order in which an engine
works.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy
import pyarrow

from hornbook.corpus.cleaning import clean
from hornbook.corpus.engine import load_daft
from hornbook.recipe_data import CleaningSection

if TYPE_CHECKING:
    from daft import Expression

# The reasons with which repeats are dropped.
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near_duplicate"

_PUNCTUATION_BEYOND_ASCII = r"[[\p{P}´]&&[^\x00-\x7f]]"


def plain(text: "Expression") -> "Expression":
    """The words of a text: in small letters, without punctuation, parted by single blanks.

    Curly quotes and long dashes go as their plain kin do, or a text would be another one where only they differ.
    """
    functions = load_daft().functions
    text = functions.regexp_replace(text, _PUNCTUATION_BEYOND_ASCII, "")
    return functions.normalize(text, remove_punct=True, lowercase=True, nfd_unicode=True, white_space=True)


def plain_texts(texts: Sequence[str], cleaning: CleaningSection | None = None) -> pyarrow.Array:
    """The words of some texts that are at hand, as `plain` gives them; cleaned first, where `cleaning` says how."""
    daft = load_daft()
    text = daft.col("text")
    if cleaning is not None:
        text = clean(text, daft.lit(False), cleaning)
    frame = daft.from_arrow(pyarrow.table({"text": pyarrow.array(texts, pyarrow.large_string())}))
    return frame.select(plain(text).alias("text")).to_arrow()[0].combine_chunks()


def text_key(plain_text: "Expression") -> "Expression":
    """A 64-bit hash of the words.

    Among ten million different documents the chance that any two share a key is 3 in a million.
    """
    return load_daft().functions.hash(plain_text)


def find_repeats(keys: numpy.ndarray) -> numpy.ndarray:
    """Which documents repeat an earlier one.

    Args:
        keys: `text_key` of each document, in the order of the documents.

    Returns for each document the number of the first one with its key, or -1 where it is the first itself.
    """
    _, firsts, which = numpy.unique(keys, return_index=True, return_inverse=True)
    first = firsts[which]
    return numpy.where(first == numpy.arange(len(keys)), -1, first)
