"""Stories: a few people with a few things at a few places, told sentence by sentence.

A story opens by saying who is where with what. Then people walk, give, leave, take and swap, and between these events
the teller does what tellers for children do: says again who has what and who is where, asks and answers, and mentions
what an animal did or what somebody ate. The repetitions are what a small model learns to look things up from.

What is new stands behind what it is about, as in an opening ("… gave the kite to Mia"), or the state is said again
after it ("Now the kite was with Mia."): a small model first learns to look for what came *behind* an earlier word.

A sentence is a function of the story: it draws what it is about, fills one of its wordings, and, if something happens,
changes the world. The teller picks among the sentences that are possible in the present state of the world.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from hornbook.storyworld.chance import Chance
from hornbook.storyworld.wording import Slot, a, capitalised, fill
from hornbook.storyworld.world import Person, Thing, World, lexicon, names, others

ANOTHER_PERSON = 0.8  # probability that a third person is introduced, and then each further one
STORY_SENTENCES = (3, 7)  # fewest and most of a paragraph after the opening
STILL_LIFE_SENTENCES = (8, 16)
ANOTHER_SENTENCE = 0.7  # probability that a paragraph of at least its fewest sentences goes on
N_PARAGRAPHS = 3  # the opening among them

# How somebody new is introduced: in the first four a thing's look stands right behind it, in the last three its holder.
INTRODUCTIONS = (
    " There was {a_noun} painted {colour} with {name} the {role} at {place}.",
    " There was {a_noun} dyed {colour} with {name} the {role} at {place}.",
    " One saw {a_noun} painted {colour} with {name} the {role} at {place}.",
    " Here was {a_noun} tinted {colour} with {name} the {role} at {place}.",
    " There was {a_noun} with {name} the {role} at {place}. The {noun} was painted {colour}.",
    " One saw {a_noun} with {name} the {role} at {place}. The {noun} was dyed {colour}.",
    " Here was {a_noun} with {name} the {role} at {place}. The {noun} was tinted {colour}.",
)


@dataclass
class Story:
    """A story being told: the state of its world, and the chance that drives it.

    `known_place` is the probability that somebody is, or goes, where somebody or something is already.
    """

    chance: Chance
    max_people: int = 4
    known_place: float = 0.6
    world: World = field(default_factory=World)

    def word(self, part: str) -> Callable[[], str]:
        """What draws a word of the given part of the lexicon, once its turn in a wording comes."""
        return lambda: self.chance.pick(lexicon()[part])

    def look(self) -> str:
        """A word for the looks of an animal or a plant, with its article."""
        return a(self.chance.pick(lexicon()["looks"]))

    def say(self, wordings: Sequence[str], **slots: Slot) -> Iterator[str]:
        """One of `wordings`, filled; see `hornbook.storyworld.wording.fill`."""
        return fill(self.chance, wordings, **slots)


def scene(chance: Chance) -> Story:
    """A story in which nothing will happen: with more people at more places, for looking one up is then worth more."""
    return Story(chance, max_people=6, known_place=0.3)


# ------------------------------------------------------------------------------------------------ the opening


def open_story(story: Story) -> Iterator[str]:
    """The weather, and everybody with where they are and what they have."""
    wordings = (
        "It was a {weather} {time}.",
        "One {weather} {time}, the world stood like this.",
        "The {time} was {weather}.",
    )
    yield from story.say(wordings, weather=story.word("weathers"), time=story.word("times"))
    yield from introduce(story)
    yield from introduce(story)
    while len(story.world.people) < story.max_people and story.chance.happens(ANOTHER_PERSON):
        yield from introduce(story)


def introduce(story: Story) -> Iterator[str]:
    """A new person with a new thing."""
    world, chance = story.world, story.chance
    person = Person(name="", role="", place="")
    thing = Thing(noun="", colour="", holder=person, place="")

    def name() -> str:
        person.name = chance.pick(others(names(), [p.name for p in world.people]))
        return person.name

    def role() -> str:
        person.role = chance.pick(others(lexicon()["roles"], [p.role for p in world.people]))
        return person.role

    def place() -> str:
        person.place = draw_place(story)
        return person.place

    def colour() -> str:
        thing.colour = chance.pick(others(lexicon()["colours"], [t.colour for t in world.things]))
        return thing.colour

    def noun() -> str:
        thing.noun = chance.pick(others(lexicon()["things"], [t.noun for t in world.things]))
        return thing.noun

    yield from story.say(
        INTRODUCTIONS,
        a_noun=lambda: a(noun()),
        noun=lambda: thing.noun,
        colour=colour,
        name=name,
        role=role,
        place=place,
    )
    world.people.append(person)
    world.things.append(thing)


def draw_place(story: Story, avoid: Sequence[str] = ()) -> str:
    """A place where somebody or something is already, or one that is new to the story; none of `avoid`."""
    known = others(story.world.places(), avoid)
    if known and story.chance.happens(story.known_place):
        return story.chance.pick(known)
    place = story.chance.pick(others(lexicon()["places"], [*known, *avoid]))
    story.world.places_told.append(place)
    return place


# ------------------------------------------------------------------------------------------------ what happens


def walk(story: Story) -> Iterator[str]:
    """Somebody goes to another place. What they have goes along, though nobody says so."""
    person = story.chance.pick(story.world.people)
    old_place, place = person.place, _new_place_of(story, person)
    wordings = (
        "{name} {walked} to {place}.",
        "{name} {adverb} {walked} to {place}.",
        "{name} left {old_place} and {walked} to {place}.",
        "{name} {walked} away. Now {name} was at {place}.",
    )
    walked, adverb = story.word("walks"), story.word("adverbs")
    yield from story.say(wordings, name=person.name, old_place=old_place, walked=walked, adverb=adverb, place=place)


def carry(story: Story) -> Iterator[str]:
    """Somebody goes to another place with a thing."""
    thing = story.chance.pick(held_things(story.world))
    person = thing.owner
    wordings = (
        "{name} carried the {noun} to {place}.",
        "{name} took the {colour} {noun} along to {place}.",
        "{name} {walked} away with the {noun}. Now the {noun} was at {place}.",
    )
    place, walked = _new_place_of(story, person), story.word("walks")
    yield from story.say(wordings, name=person.name, noun=thing.noun, colour=thing.colour, walked=walked, place=place)


def _new_place_of(story: Story, person: Person) -> Callable[[], str]:
    """What sends `person` to another place, once the place's turn in a wording comes."""

    def place() -> str:
        person.place = draw_place(story, avoid=[person.place])
        return person.place

    return place


def things_to_give(world: World) -> list[Thing]:
    """The things whose holder is not alone."""
    return [thing for thing in world.things if thing.holder and world.company_of(thing.holder)]


def give(story: Story) -> Iterator[str]:
    """Somebody gives a thing to somebody at the same place."""
    thing = story.chance.pick(things_to_give(story.world))
    giver = thing.owner
    receiver = story.chance.pick(story.world.company_of(giver))
    wordings = (
        "{giver} gave the {noun} to {receiver}.",
        "{giver} {adverb} handed the {colour} {noun} to {receiver}.",
        "{receiver} asked for the {noun}. {giver} agreed, and now the {noun} was with {receiver}.",
        "{giver} was tired of the {noun} and let {receiver} have it. Now the {noun} was with {receiver}.",
    )
    yield from story.say(
        wordings,
        giver=giver.name,
        receiver=receiver.name,
        noun=thing.noun,
        colour=thing.colour,
        adverb=story.word("adverbs"),
    )
    thing.holder = receiver


def held_things(world: World) -> list[Thing]:
    """The things that somebody has."""
    return [thing for thing in world.things if thing.holder]


def leave(story: Story) -> Iterator[str]:
    """Somebody puts a thing down where they are."""
    thing = story.chance.pick(held_things(story.world))
    person = thing.owner
    wordings = (
        "{name} left the {noun} at {place}.",
        "{name} put down the {colour} {noun}. Now the {noun} lay at {place}.",
    )
    yield from story.say(
        wordings,
        name=person.name,
        noun=thing.noun,
        colour=thing.colour,
        place=person.place,
        adverb=story.word("adverbs"),
    )
    thing.holder, thing.place = None, person.place


def things_to_take(world: World) -> list[Thing]:
    """The things that lie where somebody is."""
    return [thing for thing in world.lying() if any(person.place == thing.place for person in world.people)]


def take(story: Story) -> Iterator[str]:
    """Somebody takes a thing that lies where they are."""
    thing = story.chance.pick(things_to_take(story.world))
    person = story.chance.pick([person for person in story.world.people if person.place == thing.place])
    wordings = (
        "The {noun} at {place} was found by {name}.",
        "{name} {adverb} picked up the {colour} {noun}. Now the {noun} was with {name}.",
    )
    yield from story.say(
        wordings,
        name=person.name,
        noun=thing.noun,
        colour=thing.colour,
        place=thing.place,
        adverb=story.word("adverbs"),
    )
    thing.holder = person


def feel(story: Story) -> Iterator[str]:
    """Somebody's mood, new or changed."""
    person = story.chance.pick(story.world.people)

    def mood() -> str:
        person.mood = story.chance.pick(others(lexicon()["moods"], [person.mood or ""]))
        return person.mood

    wordings = ("{name} became {mood}.", "Now {name} felt {mood}.", "All this made {name} {mood}.")
    yield from story.say(wordings, name=person.name, mood=mood)


# ------------------------------------------------------------------------------------------------ what is so


def tell_holder(story: Story) -> Iterator[str]:
    """Who has a thing."""
    thing = story.chance.pick(held_things(story.world))
    wordings = ("The {noun} was with {name}.", "Who had the {noun}? The {noun} was with {name}.")
    yield from story.say(wordings, noun=thing.noun, name=thing.owner.name)


def tell_place_of_person(story: Story) -> Iterator[str]:
    """Where somebody is."""
    person = story.chance.pick(story.world.people)
    wordings = ("{name} was in {place}.", "Where was {name}? Now {name} was in {place}.")
    yield from story.say(wordings, name=person.name, place=person.place)


def tell_place_of_thing(story: Story) -> Iterator[str]:
    """Where a thing is, held or lying."""
    thing = story.chance.pick(story.world.things)
    wordings = ("The {noun} was in {place}.", "Where was the {noun}? The {noun} was in {place}.")
    yield from story.say(wordings, noun=thing.noun, place=thing.where)


def tell_colour(story: Story) -> Iterator[str]:
    """What colour a thing has."""
    thing = story.chance.pick(story.world.things)
    wordings = ("The {noun} was coloured {colour}.", "What colour was the {noun}? The {noun} was coloured {colour}.")
    yield from story.say(wordings, noun=thing.noun, colour=thing.colour)


def tell_role(story: Story) -> Iterator[str]:
    """What somebody does for a living."""
    person = story.chance.pick(story.world.people)
    wordings = (
        "{name} served as {role}.",
        "What was {name}? {name} served as {role}.",
    )
    yield from story.say(wordings, name=person.name, role=person.role)


def people_with_mood(world: World) -> list[Person]:
    """Those whose mood the story has told."""
    return [person for person in world.people if person.mood]


def tell_mood(story: Story) -> Iterator[str]:
    """How somebody feels, said again."""
    person = story.chance.pick(people_with_mood(story.world))
    wordings = ("{name} felt {mood}.", "How did {name} feel? {name} felt {mood}.")
    yield from story.say(wordings, name=person.name, mood=person.mood or "")


# ------------------------------------------------------------------------------------------------ by the way


def mention_animal(story: Story) -> Iterator[str]:
    """What an animal did where somebody is."""
    place = story.chance.pick(story.world.places())
    wordings = (
        "At {place}, {look} {animal} {acted} {adverb}.",
        "{Look} {animal} {acted} at {place}.",
    )
    yield from story.say(
        wordings,
        place=place,
        look=story.look,
        Look=lambda: capitalised(story.look()),
        animal=story.word("animals"),
        acted=story.word("doings"),
        adverb=story.word("adverbs"),
    )


def mention_plant(story: Story) -> Iterator[str]:
    """What grew where somebody or something is."""
    place = story.chance.pick(story.world.places())
    wordings = ("At {place} grew {look} {plant}.", "Near {place} stood {look} {plant}.")
    yield from story.say(wordings, place=place, look=story.look, plant=story.word("plants"))


def mention_chore(story: Story) -> Iterator[str]:
    """Something somebody did that changes nothing."""
    person = story.chance.pick(story.world.people)
    wordings = ("{name} {acted}.", "{name} {acted} {adverb}.", "The {role} {acted} {adverb}.")
    acted, adverb = story.word("chores"), story.word("adverbs")
    yield from story.say(wordings, name=person.name, role=person.role, acted=acted, adverb=adverb)


def mention_food(story: Story) -> Iterator[str]:
    """What somebody ate, liked or dreamed of."""
    person = story.chance.pick(story.world.people)
    wordings = ("{name} ate some {food}.", "{name} dreamed of {food}.", "{name} liked {food} with {other}.")
    food = story.word("foods")
    yield from story.say(wordings, name=person.name, food=food, other=food)


# ------------------------------------------------------------------------------------------------ the telling

Sentence = Callable[[Story], Iterator[str]]


def happenings(world: World) -> list[tuple[float, Sentence]]:
    """What can happen next, with its weight."""
    options: list[tuple[float, Sentence, object]] = [
        (2, walk, True),
        (2, carry, held_things(world)),
        (6, give, things_to_give(world)),
        (2, leave, held_things(world)),
        (3, take, things_to_take(world)),
        (1, feel, True),
    ]
    return [(weight, sentence) for weight, sentence, is_possible in options if is_possible]


def reports(world: World) -> list[tuple[float, Sentence]]:
    """What can be said of the world as it is, with its weight."""
    options: list[tuple[float, Sentence, object]] = [
        (5, tell_holder, held_things(world)),
        (4, tell_place_of_person, True),
        (4, tell_place_of_thing, True),
        (4, tell_colour, True),
        (3, tell_role, True),
        (2, tell_mood, people_with_mood(world)),
    ]
    return [(weight, sentence) for weight, sentence, is_possible in options if is_possible]


def asides() -> list[tuple[float, Sentence]]:
    """What can be said by the way, with its weight."""
    return [(1, mention_animal), (1, mention_plant), (1, mention_chore), (1, mention_food)]


def tell(story: Story) -> Iterator[str]:
    """A whole story, piece by piece."""
    yield from open_story(story)
    for _ in range(1, N_PARAGRAPHS):
        yield "\n\n"
        yield from tell_paragraph(story, lambda world: happenings(world) + reports(world) + asides(), *STORY_SENTENCES)


def tell_still_life(story: Story) -> Iterator[str]:
    """A story in which nothing happens: who is where with what, and the same again in other words."""
    yield from open_story(story)
    yield "\n\n"
    yield from tell_paragraph(story, reports, *STILL_LIFE_SENTENCES)


def tell_paragraph(
    story: Story, options: Callable[[World], list[tuple[float, Sentence]]], fewest: int, most: int
) -> Iterator[str]:
    """From `fewest` to `most` sentences, each drawn among those that are possible when its turn comes."""
    for n_told in range(1, most + 1):
        sentence = story.chance.weigh(options(story.world))
        yield from sentence(story)
        if n_told == most or (n_told >= fewest and not story.chance.happens(ANOTHER_SENTENCE)):
            return
        yield " "
