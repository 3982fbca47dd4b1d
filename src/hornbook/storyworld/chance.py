"""Chance that keeps its accounts: every choice of the storyworld is drawn here, and its probability written down.

A document is the outcome of a sequence of choices. If each choice shows in the text, so that no two sequences give the
same text, then -log2 of the document's probability is the sum of -log2 over its choices. That sum is `Chance.bits`: the
fewest bits in which any model, however large, can on average write the document down. The rule "each choice shows" is
kept by the writers of sentences (nothing is drawn before the words that show it) and checked by `derivations`, which
searches for every sequence of choices that leads to a given text.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import log2
from typing import TypeVar

from hornbook.runtime import derive_seed

T = TypeVar("T")


class Chance:
    """A stream of choices, the same on every machine for the same `parts`, and what they cost in bits."""

    def __init__(self, *parts: int | str) -> None:
        # Only random() is promised to give the same numbers in every later version of Python, so only it is used.
        self._uniform = random.Random(derive_seed(*parts)).random
        self.bits = 0.0

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, each as likely as the others."""
        self.bits += log2(len(options))
        return options[int(self._uniform() * len(options))]

    def weigh(self, options: Sequence[tuple[float, T]]) -> T:
        """One of `options`, given as (weight, value), with a probability in proportion to its weight.

        A value may stand there several times: the text does not show which of them was drawn, so they count as one.
        """
        total = sum(weight for weight, _ in options)
        place = self._uniform() * total
        ends = accumulate(weight for weight, _ in options)
        _, value = next((option for option, end in zip(options, ends, strict=True) if place < end), options[-1])
        self.bits -= log2(_weight_of(value, options) / total)
        return value

    def happens(self, probability: float) -> bool:
        """True with the given probability."""
        return self.weigh([(probability, True), (1.0 - probability, False)])


def _weight_of(value: T, options: Sequence[tuple[float, T]]) -> float:
    return sum(weight for weight, other in options if other == value)


class _Undecided(Exception):
    """Raised where a replayed writer reaches a choice beyond those that were laid down for it."""

    def __init__(self, n_options: int) -> None:
        self.n_options = n_options


class _Replay(Chance):
    """Takes the choices it is told to take, and stops the writer at the first one it was not told."""

    def __init__(self, decisions: Sequence[int]) -> None:
        self._decisions = iter(decisions)
        self.bits = 0.0

    def _decide(self, n_options: int) -> int:
        decision = next(self._decisions, None)
        if decision is None:
            raise _Undecided(n_options)
        return decision

    def pick(self, options: Sequence[T]) -> T:
        self.bits += log2(len(options))
        return options[self._decide(len(options))]

    def weigh(self, options: Sequence[tuple[float, T]]) -> T:
        values = [value for number, (_, value) in enumerate(options) if value not in [v for _, v in options[:number]]]
        value = values[self._decide(len(values))]
        self.bits -= log2(_weight_of(value, options) / sum(weight for weight, _ in options))
        return value


def derivations(write: Callable[[Chance], Iterator[str]], text: str) -> Iterator[float]:
    """Yield the bits of every sequence of choices with which `write` gives exactly `text`.

    Args:
        write: yields the pieces of a document, drawing from the chance it is given just before the piece that shows it.
        text: the document.

    The search tries all options of each choice and follows those whose text so far begins `text`. It is meant for
    tests: a document has one derivation, or its recorded probability is too small.
    """
    open_decisions: list[list[int]] = [[]]
    while open_decisions:
        decisions = open_decisions.pop()
        replay, length = _Replay(decisions), 0
        try:
            for piece in write(replay):
                if not text.startswith(piece, length):
                    break
                length += len(piece)
            else:
                if length == len(text):
                    yield replay.bits
        except _Undecided as undecided:
            open_decisions.extend([*decisions, option] for option in range(undecided.n_options))
