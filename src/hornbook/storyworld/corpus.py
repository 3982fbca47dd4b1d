"""The corpus of the world: stories, still lives, echoes, puzzles, the encyclopedia, with their exact probabilities."""

import heapq
from collections.abc import Callable, Iterator
from operator import itemgetter

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.echoes import echo
from hornbook.storyworld.encyclopedia import passage
from hornbook.storyworld.puzzles import puzzle_document
from hornbook.storyworld.stories import Story, scene, tell, tell_still_life
from hornbook.storyworld.world import Document

SHARE_READ_FIRST = 2 / 3  # of the echoes and of the still lives
OVERLAP = 0.05  # of each phase: the next kind sets in before this one ends, so that no step is all surprise


def tell_story(chance: Chance) -> Iterator[str]:
    """A whole story, piece by piece."""
    return tell(Story(chance))


def still_life(chance: Chance) -> Iterator[str]:
    """A story in which nothing happens, piece by piece."""
    return tell_still_life(scene(chance))


def write_documents(section: StoryworldSection) -> Iterator[Document]:
    """All documents of the corpus: most echoes, then most still lives, then all the rest evenly mixed.

    Whoever reads them in this order learns to look back before there is anything to understand, and to look things up
    before anything changes. What is left of both keeps them alive. The same section writes the same bytes everywhere.
    """
    first_echoes, first_still_lives = (round(n * SHARE_READ_FIRST) for n in (section.echoes, section.still_lives))
    once_begun = 1 - OVERLAP
    kinds = (
        (0, 1, "echo", echo, range(first_echoes)),
        (once_begun, 2, "still-life", still_life, range(first_still_lives)),
        (1 + once_begun, 3, "echo", echo, range(first_echoes, section.echoes)),
        (1 + once_begun, 3, "still-life", still_life, range(first_still_lives, section.still_lives)),
        (1 + once_begun, 3, "story", tell_story, range(section.stories)),
        (1 + once_begun, 3, "puzzle", puzzle_document, range(section.puzzles)),
        (1 + once_begun, 3, "encyclopedia", passage, range(section.encyclopedia_passages)),
    )
    placed = (
        zip(_evenly(len(numbers), start, end), _write(kind, writer, numbers, section.seed), strict=True)
        for start, end, kind, writer, numbers in kinds
    )
    yield from (document for _, document in heapq.merge(*placed, key=itemgetter(0)))


def _evenly(n_documents: int, start: float, end: float) -> Iterator[float]:
    """Where each of n documents stands in an order that begins at 0."""
    return (start + (number + 0.5) / n_documents * (end - start) for number in range(n_documents))


def _write(kind: str, writer: Callable[[Chance], Iterator[str]], numbers: range, seed: int) -> Iterator[Document]:
    for number in numbers:
        chance = Chance(seed, kind, number)
        text = "".join(writer(chance))
        yield Document(f"{kind}-{number}", kind, text, chance.bits)
