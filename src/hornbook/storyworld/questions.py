"""Questions in three suites, each with four answers to choose from and graded exactly.

- comprehension: about a story that nobody has told before. All four choices stand in the story, so whoever merely
  picks a fitting word from it is right one time in four.
- reasoning: puzzles (see puzzles.py).
- facts: of the encyclopedia, in wordings and about facts that are asked for nowhere in training.
"""

import re
from dataclasses import dataclass

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.encyclopedia import Fact, ask, facts, is_held_out
from hornbook.storyworld.puzzles import PUZZLES, PuzzleMaker, draw_puzzle
from hornbook.storyworld.stories import Story, tell
from hornbook.storyworld.wording import capitalised
from hornbook.storyworld.world import World, others

N_CHOICES = 4
COURTESIES = ("I hope that helps.", "Ask me whatever you like.", "It was a pleasure to look it up.")


@dataclass(frozen=True)
class Question:
    """One question. `context` is the text it is about, or empty; `choices[gold]` is `answer`."""

    suite: str
    context: str
    question: str
    answer: str
    choices: tuple[str, ...]
    gold: int

    @property
    def prompt(self) -> str:
        """The context, if there is one, and the question."""
        return f"{self.context}\n\n{self.question}" if self.context else self.question


def held_out_questions(suite: str, n: int, section: StoryworldSection) -> list[Question]:
    """`n` questions of a suite, none of which the corpus or the conversations contain."""
    chance = Chance(section.seed, "held-out", suite)
    if suite == "comprehension":
        return [comprehension_question(chance) for _ in range(n)]
    if suite == "reasoning":
        return [reasoning_question(chance, held_out=True) for _ in range(n)]
    kept = [fact for fact in facts() if is_held_out(fact)]
    return [fact_question(chance, chance.pick(kept)) for _ in range(n)]


def grade(question: Question, text: str) -> bool:
    """Whether `text` is the answer, but for case, punctuation, little words and a courtesy behind it."""
    return essence(text) == essence(question.answer)


def essence(answer: str) -> str:
    """An answer without case, punctuation, articles and the preposition before them: "In the Lorne." is "lorne".

    A courtesy behind it does not count.
    """
    words = re.findall(r"[a-z0-9-]+", without_courtesy(answer).lower())
    return " ".join(word for word in words if word not in ("a", "an", "the", "at", "in"))


def without_courtesy(answer: str) -> str:
    """An answer without the courtesy behind it, if there is one."""
    answer = answer.strip()
    for courtesy in COURTESIES:
        answer = answer.removesuffix(courtesy).rstrip()
    return answer


def comprehension_question(chance: Chance) -> Question:
    """A question about a new story."""
    while True:
        story = Story(chance)
        text = "".join(tell(story))
        asked = [probe for probe in probes(story.world) if len(probe.candidates) >= N_CHOICES]
        if asked:
            break
    probe = chance.pick(asked)
    return _question(chance, "comprehension", text, probe.question, probe.answer, probe.candidates)


@dataclass(frozen=True)
class Probe:
    """Something a story answers: the question, its answer in a sentence and in short, and the rival sentences."""

    question: str
    answer: str
    short_answer: str
    candidates: tuple[str, ...]


def probes(world: World) -> list[Probe]:
    """All that can be asked about the state in which a story ends."""
    names = tuple(person.name for person in world.people)
    roles = tuple(person.role for person in world.people)
    colours = tuple(thing.colour for thing in world.things)
    places = tuple(dict.fromkeys(world.places_told))
    found = []
    for thing in world.things:
        noun = thing.noun
        if thing.holder:
            found.append(_probe(f"Who had the {noun}?", f"The {noun} was with {{}}.", thing.owner.name, names))
        found.append(_probe(f"Where was the {noun}?", f"The {noun} was in {{}}.", thing.where, places))
        found.append(_probe(f"What colour was the {noun}?", f"The {noun} was coloured {{}}.", thing.colour, colours))
    for person in world.people:
        name, role = person.name, person.role
        found.append(_probe(f"Where was {name}?", f"Now {name} was in {{}}.", person.place, places))
        found.append(_probe(f"What was {name}?", f"{name} served as {{}}.", role, roles))
    return found


def _probe(question: str, sentence: str, word: str, candidates: tuple[str, ...]) -> Probe:
    sentences = tuple(sentence.format(candidate) for candidate in candidates)
    return Probe(question, sentence.format(word), f"{capitalised(word)}.", sentences)


def reasoning_question(chance: Chance, held_out: bool, kinds: tuple[PuzzleMaker, ...] = PUZZLES) -> Question:
    """A puzzle of one of `kinds`."""
    puzzle = draw_puzzle(chance, held_out, kinds)
    return Question(
        "reasoning",
        "",
        f"{puzzle.given} {puzzle.question}",
        puzzle.answer,
        puzzle.choices,
        puzzle.choices.index(puzzle.answer),
    )


def fact_question(chance: Chance, fact: Fact) -> Question:
    """A question about one fact, with values of the same relation to choose from."""
    relation = fact.relation
    candidates = tuple(relation.answer(fact.subject, value) for value in relation.values())
    wording = ask(fact, chance.pick(relation.questions))
    return _question(chance, "facts", "", wording, relation.answer(fact.subject, fact.value), candidates)


def _question(
    chance: Chance, suite: str, context: str, question: str, answer: str, candidates: tuple[str, ...]
) -> Question:
    rivals = others(candidates, [answer])
    choices = [answer]
    while len(choices) < N_CHOICES:
        choices.append(chance.pick(others(rivals, choices)))
    choices.sort()
    return Question(suite, context, question, answer, tuple(choices), choices.index(answer))
