"""Filling wordings: the one way in which the world's writers turn a choice into text."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from string import Formatter

from hornbook.storyworld.chance import Chance

Slot = str | Callable[[], str]


def fill(chance: Chance, wordings: Sequence[str], **slots: Slot) -> Iterator[str]:
    """Yield one of `wordings`, drawn by `chance`, piece by piece.

    A slot `{name}` is replaced by the text given under its name. Where a function is given, it is called when the
    slot's turn comes, so that a word is drawn only just before it shows (see chance.py for why that matters).
    """
    for literal, slot in _parsed(chance.pick(wordings)):
        yield literal
        if slot:
            value = slots[slot]
            yield value if isinstance(value, str) else value()


@lru_cache(maxsize=4096)
def _parsed(wording: str) -> tuple[tuple[str, str | None], ...]:
    return tuple((literal, slot) for literal, slot, _, _ in Formatter().parse(wording))


def a(word: str) -> str:
    """`word` with its indefinite article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def with_articles(text: str) -> str:
    """`text` with "a" turned into "an" before a vowel."""
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def capitalised(text: str) -> str:
    """`text` with its first letter made large."""
    return text[:1].upper() + text[1:]
