"""Short passages: found by comparing them with a text word by word, for counts of runs prove little about them."""

from collections.abc import Sequence
from typing import NamedTuple

# Fewer words in a row than these prove nothing.
MIN_PASSAGE_WORDS = 8


class ShortPassage(NamedTuple):
    """The words of a passage, and whether one of them may be edited."""

    words: list[str]
    may_be_edited: bool

    def find(self, text: Sequence[str]) -> tuple[int, int] | None:
        """Where the passage stands in a text: the number of its first word there and that after its last, or None.

        An edit is a word replaced, left out or put in between. What is left on one side of it alone must be
        MIN_PASSAGE_WORDS long: all sorts of texts have "the end of the second world war".
        """
        if len(set(self.words).difference(text)) > self.may_be_edited:
            return None
        for start in range(len(text)):
            n_equal = 0
            for wanted, word in zip(self.words, text[start:], strict=False):
                if wanted != word:
                    break
                n_equal += 1
            if n_equal == len(self.words):
                return start, start + n_equal
            for n_left_out, n_put_in in ((1, 1), (1, 0), (0, 1)) if self.may_be_edited else ():
                rest = self.words[n_equal + n_left_out :]
                if max(n_equal, len(rest)) == len(self.words) - 1 < MIN_PASSAGE_WORDS:
                    continue
                goes_on = start + n_equal + n_put_in
                if text[goes_on : goes_on + len(rest)] == rest:
                    return start, goes_on + len(rest)
        return None
