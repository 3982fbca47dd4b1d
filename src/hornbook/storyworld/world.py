"""The state of the world: people, places and things, who has what, and who is where.

A sentence of a story either changes this state or reports it, so it is true at the moment it is told.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True)
class Document:
    """One document of the world's corpus.

    Attributes:
        id: unique within the corpus.
        kind: "story", "still-life", "inventory", "echo", "puzzle", "sum" or "encyclopedia".
        text: the document.
        bits: -log2 of its probability under the generator, given its kind.
    """

    id: str
    kind: str
    text: str
    bits: float


@dataclass(eq=False)
class Person:
    """Somebody in a story. `mood` is None until the story tells it."""

    name: str
    role: str
    place: str
    mood: str | None = None


@dataclass(eq=False)
class Thing:
    """A thing that somebody holds, or, with `holder` None, that lies at `place`."""

    noun: str
    colour: str
    holder: Person | None
    place: str

    @property
    def owner(self) -> Person:
        """The one who has the thing; only for a thing that somebody has."""
        if self.holder is None:
            raise ValueError(f"nobody has the {self.noun}")
        return self.holder

    @property
    def where(self) -> str:
        """The place at which the thing is: its holder's, if it has one."""
        return self.holder.place if self.holder else self.place


@dataclass
class World:
    """Everything that is so at one moment of a story, and `places_told`: all places the story has spoken of."""

    people: list[Person] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    places_told: list[str] = field(default_factory=list)

    def held_by(self, person: Person) -> list[Thing]:
        """The things that `person` has."""
        return [thing for thing in self.things if thing.holder is person]

    def lying(self) -> list[Thing]:
        """The things that nobody has."""
        return [thing for thing in self.things if thing.holder is None]

    def company_of(self, person: Person) -> list[Person]:
        """The others who are where `person` is."""
        return [other for other in self.people if other is not person and other.place == person.place]

    def places(self) -> list[str]:
        """The places at which there is somebody or something, in the order of the people and then the things."""
        return list(dict.fromkeys([p.place for p in self.people] + [t.place for t in self.lying()]))


@lru_cache(maxsize=1)
def lexicon() -> dict[str, tuple[str, ...]]:
    """The words of the world by their part: {"women": ("Abby", …), "places": ("abbey", …), …}."""
    sections = tomllib.loads(files("hornbook.storyworld").joinpath("lexicon.toml").read_text("utf-8"))
    return {part: tuple(words.split()) for section in sections.values() for part, words in section.items()}


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The names that people can have."""
    return lexicon()["women"] + lexicon()["men"]


def others(words: Sequence[str], used: Sequence[str]) -> list[str]:
    """`words` without those in `used`, in their order."""
    return [word for word in words if word not in used]
