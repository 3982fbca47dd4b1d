"""Deduplication: of texts that are the same but for case, punctuation and blanks, the first one stays."""

from typing import TYPE_CHECKING

import numpy

from hornbook.corpus.engine import load_daft

if TYPE_CHECKING:
    from daft import Expression

# The reason with which repeats are dropped.
DUPLICATE = "duplicate"


def text_key(text: "Expression") -> "Expression":
    """A 64-bit hash of the text in small letters, without punctuation and with single blanks.

    Among ten million different documents the chance that any two share a key is 3 in a million.
    """
    functions = load_daft().functions
    plain = functions.normalize(text, remove_punct=True, lowercase=True, nfd_unicode=True, white_space=True)
    return functions.hash(plain)


def find_repeats(keys: numpy.ndarray) -> numpy.ndarray:
    """Which documents repeat an earlier one.

    Args:
        keys: `text_key` of each document, in the order of the documents.

    Returns a boolean array of the same length. Keys alone take eight bytes a document, so this is done in one
    place, and the outcome cannot depend on the order in which an engine works.
    """
    is_repeat = numpy.ones(len(keys), dtype=bool)
    is_repeat[numpy.unique(keys, return_index=True)[1]] = False
    return is_repeat
