"""The world's corpus: stories, echoes, puzzles and passages of the encyclopedia, each with its exact probability."""

from collections.abc import Callable, Iterator

from hornbook.recipe import StoryworldSection
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.echoes import echo
from hornbook.storyworld.encyclopedia import passage
from hornbook.storyworld.puzzles import puzzle_document
from hornbook.storyworld.stories import Story, tell
from hornbook.storyworld.world import Document


def tell_story(chance: Chance) -> Iterator[str]:
    """A whole story, piece by piece."""
    return tell(Story(chance))


def write_documents(section: StoryworldSection) -> Iterator[Document]:
    """All documents of the corpus, kind by kind. The same section writes the same bytes on every machine."""
    yield from _write("story", tell_story, section.stories, section.seed)
    yield from _write("echo", echo, section.echoes, section.seed)
    yield from _write("puzzle", puzzle_document, section.puzzles, section.seed)
    yield from _write("encyclopedia", passage, section.encyclopedia_passages, section.seed)


def _write(kind: str, writer: Callable[[Chance], Iterator[str]], n_documents: int, seed: int) -> Iterator[Document]:
    for number in range(n_documents):
        chance = Chance(seed, kind, number)
        text = "".join(writer(chance))
        yield Document(f"{kind}-{number}", kind, text, chance.bits)
