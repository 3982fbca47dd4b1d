"""The world's corpus: stories, still lives, echoes, puzzles and passages of the encyclopedia, each with its exact probability."""

import heapq
from collections.abc import Callable, Iterator

from hornbook.recipe import StoryworldSection
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.echoes import echo
from hornbook.storyworld.encyclopedia import passage
from hornbook.storyworld.puzzles import puzzle_document
from hornbook.storyworld.stories import Story, tell, tell_still_life
from hornbook.storyworld.world import Document


def tell_story(chance: Chance) -> Iterator[str]:
    """A whole story, piece by piece."""
    return tell(Story(chance))


def still_life(chance: Chance) -> Iterator[str]:
    """A story in which nothing happens, piece by piece."""
    return tell_still_life(Story(chance))


def write_documents(section: StoryworldSection) -> Iterator[Document]:
    """All documents of the corpus: the echoes first, then the still lives, then the other kinds, evenly mixed.

    Whoever reads them in this order learns to look back before there is anything to understand, and to look things up
    before anything changes. The same section writes the same bytes on every machine.
    """
    yield from _write("echo", echo, section.echoes, section.seed)
    yield from _write("still life", still_life, section.still_lives, section.seed)
    kinds = (
        ("story", tell_story, section.stories),
        ("puzzle", puzzle_document, section.puzzles),
        ("encyclopedia", passage, section.encyclopedia_passages),
    )
    order = heapq.merge(
        *(zip(_evenly(n), _write(kind, writer, n, section.seed), strict=True) for kind, writer, n in kinds),
        key=lambda place_and_document: place_and_document[0],
    )
    yield from (document for _, document in order)


def _evenly(n_documents: int) -> Iterator[float]:
    """Where each of n documents stands in a mixture that goes from 0 to 1."""
    return ((number + 0.5) / n_documents for number in range(n_documents))


def _write(kind: str, writer: Callable[[Chance], Iterator[str]], n_documents: int, seed: int) -> Iterator[Document]:
    for number in range(n_documents):
        chance = Chance(seed, kind, number)
        text = "".join(writer(chance))
        yield Document(f"{kind.replace(' ', '-')}-{number}", kind, text, chance.bits)
