"""Inventories: what there is, in one row, and then said again thing by thing in another order.

Between echoes and stories. In an echo what comes next stands where the same words stood before. Here the words of a
sentence stood together nowhere: what the kite was painted has to be found by the kite, among a dozen things that
were painted. Of a story's sentences few ask for that; of an inventory's every one does.
"""

from collections.abc import Iterator, Sequence

from hornbook.storyworld.chance import Chance
from hornbook.storyworld.wording import a
from hornbook.storyworld.world import lexicon, names, others

THINGS = 0.6  # probability that things are listed, and not people
TWICE = 0.5  # probability that two things are said of each
# How many are listed, where one thing is said of each and where two are: the whole then fits into a row of 256 tokens.
N_SAID_ONCE = range(8, 15)
N_SAID_TWICE = range(5, 9)


def inventory(chance: Chance) -> Iterator[str]:
    """An inventory, piece by piece."""
    are_things = chance.happens(THINGS)
    connectives = _connectives(chance, are_things)
    listed: list[str] = []
    facts: list[tuple[str, str, str]] = []
    n_listed = chance.pick(N_SAID_ONCE if len(connectives) == 1 else N_SAID_TWICE)
    yield "There was "
    while len(listed) < n_listed:
        known = lexicon()["things"] if are_things else names()
        listed.append(chance.pick(others(known, listed)))
        yield a(listed[-1]) if are_things else listed[-1]
        for connective in connectives:
            facts.append((listed[-1], connective, chance.pick(_values(connective))))
            yield f" {connective} {facts[-1][2]}"
        yield "." if len(listed) == n_listed else ", "
    while facts:
        subject, connective, value = facts.pop(chance.pick(range(len(facts))))
        yield f" {'The ' if are_things else ''}{subject} was {connective} {value}."


def _connectives(chance: Chance, are_things: bool) -> Sequence[str]:
    """What is said of each: one or two of its looks, its holder and its place; of people, trade and place."""
    possible = ("painted", "with", "at") if are_things else ("the", "at")
    if not chance.happens(TWICE):
        return (chance.pick(possible),)
    if not are_things:
        return possible
    first = chance.pick(possible)
    return (first, chance.pick(others(possible, [first])))


def _values(connective: str) -> Sequence[str]:
    kinds = {"painted": "colours", "at": "places", "the": "roles"}
    return names() if connective == "with" else lexicon()[kinds[connective]]
