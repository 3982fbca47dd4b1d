"""What characters are to the quality rules: parts of words, blanks, letters, ends of sentences.

A word is a run of letters, marks and digits, also across a single point or comma between two of them ("3.5").
An apostrophe between two of them begins a new word ("Mara", "'s"). Any other character that is no blank is a
word by itself, or together with its repetitions ("...", "--"). That is close to how spaCy cuts English.
"""

from functools import cache

import numpy
import regex

# For the package `regex`, which gives the same words as the arrays of TextBatch and takes more than ten times as long.
WORD_PATTERN = (
    r"(?:(?<=[\p{L}\p{M}\p{N}_])['’])?[\p{L}\p{M}\p{N}_]+(?:[.,][\p{L}\p{M}\p{N}_]+)*"
    r"|([^\p{L}\p{M}\p{N}_\s])\1*"
)
# What a character can be, as bits.
BLANK, WORD, CONNECTOR, APOSTROPHE, LETTER, PLAIN, SENTENCE_END = 1, 2, 4, 8, 16, 32, 64
_KINDS = {
    BLANK: r"\s",
    WORD: r"[\p{L}\p{M}\p{N}_]",
    CONNECTOR: r"[.,]",
    APOSTROPHE: r"['’]",
    LETTER: r"\p{L}",
    PLAIN: r"[^\p{P}\p{S}\p{Cc}\s]",
    SENTENCE_END: r"\p{Sentence_Terminal}",
}


@cache
def kinds_of_all_characters() -> numpy.ndarray:
    """The kinds of every character of Unicode, by its code point."""
    kinds = numpy.zeros(0x110000, numpy.uint8)
    surrogates = range(0xD800, 0xE000)
    everything = "".join(chr(point) for point in range(0x110000) if point not in surrogates)
    for kind, pattern in _KINDS.items():
        of_this_kind = "".join(regex.findall(f"{pattern}+", everything))
        kinds[code_points(of_this_kind)] |= kind
    return kinds


def code_points(text: str) -> numpy.ndarray:
    """The number of each character."""
    return numpy.frombuffer(text.encode("utf-32-le"), numpy.uint32)
