"""Echoes: somebody calls a row of unrelated words, and the echo sends them back.

There is nothing to understand in them but that what was said comes again. That is the point: looking back is what a
Transformer learns last, long after it knows which words are frequent, and everything a story asks for needs it. A text
in which every other word can be copied, and no other way of guessing it exists, brings that moment much sooner.
"""

from collections.abc import Iterator
from functools import lru_cache

from hornbook.storyworld.chance import Chance
from hornbook.storyworld.wording import fill
from hornbook.storyworld.world import lexicon, names

MIN_WORDS, MAX_WORDS = 12, 40
CALLS = (
    "{name} called to {place}: ",
    "At {place}, {name} sang to the echo: ",
    "To the echo of {place}, {name} shouted: ",
)
ANSWERS = (" And the echo answered: ", " It came back to the ear of {name}: ", " The echo said all that, too: ")


def echo(chance: Chance) -> Iterator[str]:
    """A call and its echo, piece by piece."""
    called_by: list[str] = []

    def name() -> str:
        called_by.append(chance.pick(names()))
        return called_by[-1]

    yield from fill(chance, CALLS, name=name, place=lambda: chance.pick(lexicon()["places"]))
    words: list[str] = []
    n_words = chance.pick(range(MIN_WORDS, MAX_WORDS + 1))
    while len(words) < n_words:
        words.append(chance.pick(_all_words()))
        yield f"{words[-1]}." if len(words) == n_words else f"{words[-1]} "
    yield from fill(chance, ANSWERS, name=called_by[0])
    yield f"{' '.join(words)}."


@lru_cache(maxsize=1)
def _all_words() -> tuple[str, ...]:
    """Every word of the lexicon, once, in alphabetical order."""
    return tuple(sorted({word for words in lexicon().values() for word in words}))
