"""Deduplication: of texts that are the same, or nearly the same, the first one stays.

Texts are compared without case, punctuation and blanks. Only 64-bit keys, and digests of signatures on the
disk, are needed, so it is done in one place, and the outcome cannot depend on the order in which an engine
works.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy
import pyarrow

from hornbook.corpus.engine import load_daft

if TYPE_CHECKING:
    from daft import Expression

# The reasons with which repeats are dropped.
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near_duplicate"


def plain(text: "Expression") -> "Expression":
    """The words of a text: in small letters, without ASCII's punctuation, parted by single blanks."""
    return load_daft().functions.normalize(text, remove_punct=True, lowercase=True, nfd_unicode=True, white_space=True)


def plain_texts(texts: Sequence[str]) -> pyarrow.Array:
    """The words of some texts that are at hand, as `plain` gives them."""
    daft = load_daft()
    column = pyarrow.array(texts, pyarrow.large_string())
    return (
        daft.from_arrow(pyarrow.table({"text": column})).select(plain(daft.col("text"))).to_arrow()[0].combine_chunks()
    )


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
