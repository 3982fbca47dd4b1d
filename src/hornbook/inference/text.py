"""From tokens to text as they come: whole characters only, and an end at a stop string."""

import codecs
from collections.abc import Sequence

from hornbook.tokenizer.tokenizer import Tokenizer


class TextStream:
    """The text of tokens that come one by one.

    A character can be spread over several tokens, and so can a stop string: what may still become part of one is
    held back until it is certain. Bytes that never become a character come out as U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        self.tokenizer, self._stop_strings = tokenizer, [stop for stop in stop_strings if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.has_stopped = False

    def add(self, token: int) -> str:
        """The text that has become certain with this token; none after a stop string, which is not part of it."""
        return self._release(self._decoder.decode(self.tokenizer.token_bytes(token)))

    def finish(self) -> str:
        """What was still held back, after the last token."""
        piece = self._release(self._decoder.decode(b"", final=True))
        if self.has_stopped:
            return piece
        rest, self._held = self._held, ""
        return piece + rest

    def _release(self, text: str) -> str:
        if self.has_stopped:
            return ""
        self._held += text
        places = [place for stop in self._stop_strings if (place := self._held.find(stop)) >= 0]
        if places:
            self.has_stopped = True
            return self._held[: min(places)]
        n_held = max((_overlap(self._held, stop) for stop in self._stop_strings), default=0)
        piece, self._held = self._held[: len(self._held) - n_held], self._held[len(self._held) - n_held :]
        return piece


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
