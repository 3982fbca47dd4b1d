"""C4's rules: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", section 2.2, with what its published code adds (TensorFlow Datasets, c4_utils.py).

C4 first edits a text line by line (`edit_text`) and then judges what is left.
"""

import itertools
import re
from typing import Literal

import numpy
import pyarrow.compute

from hornbook.corpus.text_batch import TextBatch

# A sentence ends with its mark, closing quotes and brackets, and a blank, or else with its line.
SENTENCE_PATTERN = r"""[.!?…]["'”’)\]]*[ \t\n]+|[^ \t\n][ \t]*\n[ \t\n]*"""
TERMINAL_PUNCTUATION = (".", "?", "!", '"', "'")
# In small letters; a line with one of them speaks of the site and not of its subject.
NOTICES = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_SENTENCE_END = re.compile(SENTENCE_PATTERN)


def sentence_count(batch: TextBatch) -> numpy.ndarray:
    """Number of sentences; one does not go on in the next line. C4 keeps texts with at least 5."""
    return pyarrow.compute.count_substring_regex(batch.closed_texts, SENTENCE_PATTERN).to_numpy()


def curly_bracket_count(batch: TextBatch) -> numpy.ndarray:
    """Number of opening curly brackets: they stand in programs. C4 keeps texts without any."""
    return batch.count(batch.characters == ord("{"))


def lorem_ipsum_count(batch: TextBatch) -> numpy.ndarray:
    """How often the placeholder "lorem ipsum" occurs, in any case. C4 keeps texts without it."""
    return pyarrow.compute.count_substring(batch.texts, "lorem ipsum", ignore_case=True).to_numpy()


def edit_text(
    text: str,
    unit: Literal["lines", "sentences"],
    ends_with_punctuation: bool,
    min_words: int | None,
    max_word_length: int | None,
) -> str:
    """The lines, or the sentences, that C4 keeps of a text, without marks of citations ("[3]").

    It leaves out those with one of NOTICES. None switches a threshold off.

    Args:
        text: a text.
        unit: what is kept or left out. C4 takes lines; sentences part as in `sentence_count`.
        ends_with_punctuation: leave out what does not end with one of TERMINAL_PUNCTUATION, or ends with "...".
        min_words: leave out what has fewer words, as blanks part them. C4 takes 3.
        max_word_length: leave out what has a word of more characters. C4's code takes 1,000.
    """
    has_notice = _has_notice(text)
    kept = []
    for piece, gap in _sentences(text) if unit == "sentences" else ((line, "\n") for line in text.splitlines()):
        whole = piece.strip()
        line = _CITATION.sub("", whole) if "[" in whole else whole
        if ends_with_punctuation and (not line.endswith(TERMINAL_PUNCTUATION) or line.endswith("...")):
            continue
        # The published code counts words before it takes out citations. No further word is parted than is needed.
        if min_words is not None and len(whole.split(None, min_words - 1)) < min_words:
            continue
        if (
            max_word_length is not None
            and len(whole) > max_word_length
            and max(map(len, whole.split())) > max_word_length
        ):
            continue
        if has_notice and _has_notice(line):
            continue
        kept += [line, gap]
    return "".join(kept).strip()


def _has_notice(text: str) -> bool:
    lower = text.lower()
    return any(notice in lower for notice in NOTICES)


def _sentences(text: str) -> list[tuple[str, str]]:
    """The sentences, each with the blank to put after it: a newline where its line ended."""
    closed_text = text + "\n"
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(closed_text))]
    sentences = [closed_text[start:end] for start, end in itertools.pairwise(ends)]
    return [(s, "\n" if "\n" in s[len(s.rstrip()) :] else " ") for s in sentences]
