"""Guessing the next tokens from the text itself, so that one reading of the weights can write several tokens.

A text repeats itself: names, quotations, code. What followed the last few tokens when they stood there before is
taken as a draft; the model reads it along with the last token, and as much of it stays as the model would have
written itself. So the text is the same as without, token for token, also where tokens are drawn: each place of a
text has its own random number. (Leviathan et al., arXiv 2211.17192, with a lookup in the place of a small model, as
in Saxena's prompt lookup decoding, 2023.) That holds in float32. In bfloat16 several tokens are read by other
operations than one, which round otherwise, and where two next tokens are all but equally likely the other may be taken.
"""

from collections.abc import Sequence

MOST_DRAFTED = 7
"""Reading up to eight vectors takes little longer than reading one."""
_LONGEST, _SHORTEST = 3, 2


class Drafts:
    """The drafts of one text, which grows.

    How many tokens are drafted follows from how the last draft went: all of it right, twice as many; else one more
    than were right.
    """

    def __init__(self) -> None:
        self._length = 2
        self._n_indexed = 0
        self._followed_at: dict[tuple[int, ...], int] = {}

    def next(self, text: Sequence[int], room: int) -> list[int]:
        """What may follow the text, at most `room` tokens; empty where its end never stood there before."""
        # The last tokens themselves are indexed only when something follows them.
        for end in range(max(self._n_indexed, _SHORTEST), len(text)):
            for size in range(_SHORTEST, _LONGEST + 1):
                if end >= size:
                    self._followed_at[tuple(text[end - size : end])] = end
        self._n_indexed = max(self._n_indexed, len(text))
        for size in range(_LONGEST, _SHORTEST - 1, -1):
            place = self._followed_at.get(tuple(text[-size:])) if len(text) >= size else None
            if place is not None:
                return list(text[place : place + min(self._length, room)])
        return []

    def learn(self, n_drafted: int, n_right: int) -> None:
        """Count how a draft went."""
        if n_drafted:
            self._length = min(MOST_DRAFTED, 2 * n_drafted if n_right == n_drafted else n_right + 1)
