"""The corpus of the world: stories, still lives, echoes, puzzles, the encyclopedia, with their exact probabilities."""

import heapq
from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.echoes import echo
from hornbook.storyworld.encyclopedia import passage
from hornbook.storyworld.puzzles import puzzle_document
from hornbook.storyworld.stories import Story, scene, tell, tell_still_life
from hornbook.storyworld.world import Document

SHARE_READ_FIRST = 2 / 3  # of the echoes and of the still lives


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
    echoes = _write("echo", echo, section.echoes, section.seed)
    still_lives = _write("still-life", still_life, section.still_lives, section.seed)
    first_echoes, first_still_lives = (round(n * SHARE_READ_FIRST) for n in (section.echoes, section.still_lives))
    yield from islice(echoes, first_echoes)
    yield from islice(still_lives, first_still_lives)
    kinds = (
        (section.echoes - first_echoes, echoes),
        (section.still_lives - first_still_lives, still_lives),
        (section.stories, _write("story", tell_story, section.stories, section.seed)),
        (section.puzzles, _write("puzzle", puzzle_document, section.puzzles, section.seed)),
        (section.encyclopedia_passages, _write("encyclopedia", passage, section.encyclopedia_passages, section.seed)),
    )
    placed = (zip(_evenly(n), documents, strict=True) for n, documents in kinds)
    yield from (document for _, document in heapq.merge(*placed, key=itemgetter(0)))


def _evenly(n_documents: int) -> Iterator[float]:
    """Where each of n documents stands in a mixture that goes from 0 to 1."""
    return ((number + 0.5) / n_documents for number in range(n_documents))


def _write(kind: str, writer: Callable[[Chance], Iterator[str]], n_documents: int, seed: int) -> Iterator[Document]:
    for number in range(n_documents):
        chance = Chance(seed, kind, number)
        text = "".join(writer(chance))
        yield Document(f"{kind}-{number}", kind, text, chance.bits)
