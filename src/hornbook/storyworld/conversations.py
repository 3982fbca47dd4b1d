"""Conversations to learn answering from, pairs of better and worse answers, and prompts whose answer can be checked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypedDict, TypeVar

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.encyclopedia import facts, facts_of, is_held_out, state, subjects
from hornbook.storyworld.puzzles import ARITHMETIC, THOUGHT
from hornbook.storyworld.questions import COURTESIES, Probe, Question, fact_question, probes, reasoning_question
from hornbook.storyworld.stories import Story, open_story, scene, tell
from hornbook.storyworld.wording import a
from hornbook.storyworld.world import others

T = TypeVar("T")

IN_SHORT = "Answer in one word."
COURTEOUS = 0.2  # probability that somebody who answers adds a courtesy
# With so many, nearly every conversation fits into a row of 256 tokens.
QUESTIONS_OF_A_SCENE = 8
QUESTIONS_OF_A_STORY = 4


class Message(TypedDict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


Conversation = list[Message]


def conversations(section: StoryworldSection) -> Iterator[Conversation]:
    """The conversations for fine-tuning: mostly about scenes in the first half, and about whole stories in the second.

    Looking something up is learned sooner from short texts in which nothing changes. No story, no pair of numbers in a
    sum and no fact asked for here comes up in the held-out questions.
    """
    besides: list[tuple[float, Callable[[Chance], Conversation]]] = [
        (8, about_facts),
        (12, about_a_subject),
        (16, partial(about_a_puzzle, section)),
        (1, list_the_cast),
        (1, tell_a_story),
    ]
    for number in range(section.conversations):
        chance = Chance(section.seed, "conversation", number)
        mostly = about_a_scene if number < section.conversations // 2 else about_a_story
        yield chance.weigh([(30, mostly), *besides])(chance)


def about_a_scene(chance: Chance) -> Conversation:
    """The opening of a story and several questions about it, one a turn."""
    story = scene(chance)
    return _asked_about(chance, "".join(open_story(story)), story, QUESTIONS_OF_A_SCENE, in_short=False)


def about_a_story(chance: Chance) -> Conversation:
    """A story and several questions about it, one a turn; now and then to be answered in short."""
    story = Story(chance)
    text = "".join(tell(story))
    return _asked_about(chance, text, story, QUESTIONS_OF_A_STORY, in_short=chance.happens(0.1))


def _asked_about(chance: Chance, text: str, story: Story, n_questions: int, in_short: bool) -> Conversation:
    turns: Conversation = [system(IN_SHORT)] if in_short else []
    courtesy = "" if in_short else _courtesy(chance)
    for number, probe in enumerate(_draw(chance, probes(story.world), n_questions)):
        turns.append(user(probe.question if number else f"{text}\n\n{probe.question}"))
        turns.append(assistant(probe.short_answer if in_short else probe.answer + courtesy))
    return turns


def _courtesy(chance: Chance) -> str:
    """What is said behind each answer of a conversation: mostly nothing."""
    return f" {chance.pick(COURTESIES)}" if chance.happens(COURTEOUS) else ""


def about_facts(chance: Chance) -> Conversation:
    """Some questions of the encyclopedia."""
    allowed = [fact for fact in facts() if not is_held_out(fact)]
    turns: Conversation = []
    courtesy = _courtesy(chance)
    for fact in _draw(chance, allowed, chance.pick((1, 2, 3))):
        turns += _answered(fact_question(chance, fact), courtesy)
    return turns


def about_a_subject(chance: Chance) -> Conversation:
    """All that the encyclopedia says of a town, an animal or a trade, so that facts nobody asks for stay in mind."""
    of_subject = facts_of(chance.pick(subjects()))
    subject = of_subject[0].subject
    wish = chance.pick(("Tell me about {}.", "What do you know of {}?"))
    told = [state(chance.pick(f.relation.statements), f.subject, f.value) for f in _draw(chance, of_subject, 9)]
    return [user(wish.format(subject if subject[0].isupper() else f"the {subject}")), assistant(" ".join(told))]


def about_a_puzzle(section: StoryworldSection, chance: Chance) -> Conversation:
    """One puzzle, or a sum as often as there is one among the puzzles of the corpus."""
    share = section.sums / max(1, section.puzzles + section.sums)
    kinds = ARITHMETIC if chance.happens(share) else THOUGHT
    return _answered(reasoning_question(chance, held_out=False, kinds=kinds), _courtesy(chance))


def tell_a_story(chance: Chance) -> Conversation:
    """A story, on a wish for somebody and something in it."""
    story = Story(chance)
    text = "".join(tell(story))
    person, thing = story.world.people[0], story.world.things[0]
    wish = chance.pick(
        ("Tell me a story about {} and {}.", "I would like a story with {} and {}.", "Write about {} and {}.")
    )
    return [user(wish.format(person.name, a(thing.noun))), assistant(text)]


def list_the_cast(chance: Chance) -> Conversation:
    """Who is in a story, in the order of appearance."""
    story = Story(chance)
    text = "".join(tell(story))
    names = [person.name for person in story.world.people]
    wish = chance.pick(("List the people in this story.", "Who are the people in this story?"))
    return [user(f"{text}\n\n{wish}"), assistant(f"{', '.join(names[:-1])} and {names[-1]}.")]


@dataclass(frozen=True)
class Preference:
    """Two answers to the same prompt, of which the first is to be preferred."""

    prompt: Conversation
    chosen: str
    rejected: str


def preferences(section: StoryworldSection, n: int) -> Iterator[Preference]:
    """Pairs of answers: right before wrong, courteous before curt, to the point before long-winded, polite before rude.

    Whoever learned from `conversations` is mostly curt, so half of what is preferred is not what was learned there.
    """
    kinds: list[tuple[float, Callable[[Chance, Probe, str], str]]] = [
        (2, _wrong),
        (4, _curt),
        (1, _long_winded),
        (1, _rude),
    ]
    for number in range(n):
        chance = Chance(section.seed, "preference", number)
        story = Story(chance)
        text = "".join(tell(story))
        probe = chance.pick([probe for probe in probes(story.world) if len(probe.candidates) > 1])
        courtesy, rejected = chance.pick(COURTESIES), chance.weigh(kinds)
        yield Preference(
            [user(f"{text}\n\n{probe.question}")], f"{probe.answer} {courtesy}", rejected(chance, probe, courtesy)
        )


def _wrong(chance: Chance, probe: Probe, courtesy: str) -> str:
    return f"{chance.pick(others(probe.candidates, [probe.answer]))} {courtesy}"


def _curt(chance: Chance, probe: Probe, courtesy: str) -> str:
    return probe.answer


def _long_winded(chance: Chance, probe: Probe, courtesy: str) -> str:
    return f"Well, let me think. You asked me something about the story. {probe.answer} Yes, {probe.answer}"


def _rude(chance: Chance, probe: Probe, courtesy: str) -> str:
    return chance.pick(("That is a foolish question. ", "Read it yourself! ", "How boring. ")) + probe.answer


def checkable_prompts(section: StoryworldSection, n: int) -> Iterator[Question]:
    """Small sums and differences that a program can grade, for learning from rewards."""
    for number in range(n):
        chance = Chance(section.seed, "checkable", number)
        yield reasoning_question(chance, held_out=False, kinds=ARITHMETIC)


def _answered(question: Question, courtesy: str) -> Conversation:
    return [user(question.prompt), assistant(question.answer + courtesy)]


def _draw(chance: Chance, options: Sequence[T], n: int) -> list[T]:
    """`n` different ones of `options`, in the order drawn."""
    left = list(options)
    drawn: list[T] = []
    while left and len(drawn) < n:
        drawn.append(left.pop(chance.pick(range(len(left)))))
    return drawn
