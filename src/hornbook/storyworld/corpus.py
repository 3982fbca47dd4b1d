"""The corpus of the world, all kinds of documents of it, with their exact probabilities."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import itemgetter

from hornbook.recipe_data import StoryworldSection
from hornbook.runtime import derive_seed
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.echoes import echo
from hornbook.storyworld.encyclopedia import passage
from hornbook.storyworld.inventories import inventory
from hornbook.storyworld.puzzles import puzzle_document, sum_document
from hornbook.storyworld.stories import Story, scene, tell, tell_still_life
from hornbook.storyworld.world import Document

Writer = Callable[[Chance], Iterator[str]]
Part = tuple[Iterator[Document], int]
"""Documents, and how many of them are meant."""

SHARE_READ_FIRST = 0.7  # of echoes, inventories and still lives, in the phase that each of them has
SHARE_BESIDES = 0.1  # of every other kind that goes along with such a phase


def tell_story(chance: Chance) -> Iterator[str]:
    """A whole story, piece by piece."""
    return tell(Story(chance))


def still_life(chance: Chance) -> Iterator[str]:
    """The opening of a story in which nothing happens and reports of what is so, piece by piece."""
    return tell_still_life(scene(chance))


def write_documents(section: StoryworldSection) -> Iterator[Document]:
    """All documents of the corpus, in the order in which a small model learns most from them.

    First come most echoes, from which it learns to look back before there is anything to understand. Then most
    inventories, from which it learns to look up what was said of a thing; then most still lives, where there is more
    of all kinds to look up. Then everything, evenly mixed. In each phase a little of what was learned before goes
    along, and with the still lives a little of everything. The same section writes the same bytes everywhere.
    """
    kinds: dict[str, tuple[Writer, int]] = {
        "echo": (echo, section.echoes),
        "inventory": (inventory, section.inventories),
        "still-life": (still_life, section.still_lives),
        "story": (tell_story, section.stories),
        "puzzle": (puzzle_document, section.puzzles),
        "sum": (sum_document, section.sums),
        "encyclopedia": (passage, section.encyclopedia_passages),
    }
    amounts = {kind: n for kind, (_, n) in kinds.items()}
    waiting = {kind: _write(kind, writer, n, section.seed) for kind, (writer, n) in kinds.items()}
    left = dict(amounts)
    first, besides = SHARE_READ_FIRST, SHARE_BESIDES
    for shares in (
        {"echo": first},
        {"inventory": first, "echo": besides},
        {kind: first if kind == "still-life" else besides for kind in amounts},
        dict.fromkeys(amounts, 1.0),
    ):
        parts = {kind: min(left[kind], round(share * amounts[kind])) for kind, share in shares.items()}
        yield from _mixed([(waiting[kind], n) for kind, n in parts.items()])
        left = {kind: n - parts.get(kind, 0) for kind, n in left.items()}


def write_stories_for_pages(section: StoryworldSection) -> Iterator[Document]:
    """As many stories as web pages are wanted, others than the corpus has: the same ones would all be duplicates."""
    return _write("story", tell_story, section.web_pages, derive_seed(section.seed, "stories on web pages"))


def _mixed(parts: Sequence[Part]) -> Iterator[Document]:
    """The next documents of each part, as many as it says, evenly mixed."""
    placed = (zip(_evenly(n), islice(documents, n), strict=True) for documents, n in parts)
    return (document for _, document in heapq.merge(*placed, key=itemgetter(0)))


def _evenly(n_documents: int) -> Iterator[float]:
    """Where each of n documents stands in a mixture that goes from 0 to 1."""
    return ((number + 0.5) / n_documents for number in range(n_documents))


def _write(kind: str, writer: Writer, n_documents: int, seed: int) -> Iterator[Document]:
    for number in range(n_documents):
        chance = Chance(seed, kind, number)
        text = "".join(writer(chance))
        yield Document(f"{kind}-{number}", kind, text, chance.bits)
