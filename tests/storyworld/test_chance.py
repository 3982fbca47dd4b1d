"""Chance draws as its accounts say, the same everywhere, and `derivations` finds every way to a text."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from math import log2, sqrt

import pytest

from hornbook.storyworld.chance import Chance, derivations

N_DRAWS = 20_000


def draw(choose: Callable[[Chance], str]) -> tuple[Counter[str], dict[str, float]]:
    """How often each outcome came, and the bits it was charged with, each time the same."""
    chance, counts, bits = Chance("draws", 1), Counter(), {}
    for _ in range(N_DRAWS):
        before = chance.bits
        outcome = choose(chance)
        counts[outcome] += 1
        assert bits.setdefault(outcome, chance.bits - before) == pytest.approx(chance.bits - before, abs=1e-6)
    return counts, bits


@pytest.mark.parametrize(
    ("choose", "probabilities"),
    [
        (lambda chance: chance.pick("abcde"), dict.fromkeys("abcde", 0.2)),
        (lambda chance: chance.weigh([(1, "a"), (3, "b"), (0.5, "c")]), {"a": 2 / 9, "b": 6 / 9, "c": 1 / 9}),
        (lambda chance: str(chance.happens(0.3)), {"True": 0.3, "False": 0.7}),
    ],
    ids=["pick", "weigh", "happens"],
)
def test_outcomes_come_as_often_as_their_bits_say(choose, probabilities):
    counts, bits = draw(choose)
    assert set(counts) == set(probabilities)
    for outcome, probability in probabilities.items():
        assert bits[outcome] == pytest.approx(-log2(probability), abs=1e-6)
        deviation = sqrt(probability * (1 - probability) / N_DRAWS)
        assert abs(counts[outcome] / N_DRAWS - probability) < 4 * deviation


def test_draws_that_follow_each_other_are_independent():
    chance = Chance("pairs")
    pairs = Counter((chance.pick("abc"), chance.pick("abc")) for _ in range(N_DRAWS))
    assert len(pairs) == 9
    assert all(abs(count / N_DRAWS - 1 / 9) < 0.01 for count in pairs.values())


def test_the_parts_of_a_seed_all_count():
    seeds = [(1,), (2,), ("1",), (1, "a"), (1, "b"), ("a", 1)]
    assert len({Chance(*parts).pick(range(10**12)) for parts in seeds}) == len(seeds)
    assert len({Chance(1, "a").pick(range(10**12)) for _ in range(3)}) == 1


def greeting(chance: Chance) -> Iterator[str]:
    yield chance.pick(("Good ", "Fine "))
    yield chance.weigh([(1, "morning"), (3, "evening")])


def test_a_text_that_the_writer_cannot_write_has_no_derivation():
    for text in ("Bad morning", "Good night", "Good ", "Good morning!", ""):
        assert list(derivations(greeting, text)) == []


def test_a_text_that_can_be_written_in_one_way_has_one_derivation():
    assert list(derivations(greeting, "Fine morning")) == [pytest.approx(1 + 2)]


def test_both_derivations_of_an_ambiguous_text_are_found():
    def ambiguous(chance: Chance) -> Iterator[str]:
        yield chance.weigh([(1, "ab"), (3, "a")])
        yield chance.pick(("c", "bc"))

    assert sorted(derivations(ambiguous, "abc")) == [pytest.approx(-log2(3 / 4) + 1), pytest.approx(2 + 1)]


def test_a_choice_that_does_not_show_is_noticed():
    def secretive(chance: Chance) -> Iterator[str]:
        chance.pick((1, 2, 3))
        yield "the same text"

    assert len(list(derivations(secretive, "the same text"))) == 3


def test_the_world_does_not_depend_on_how_python_hashes_texts():
    script = (
        "import hashlib\n"
        "from hornbook.recipe_data import StoryworldSection\n"
        "from hornbook.storyworld.conversations import conversations\n"
        "from hornbook.storyworld.corpus import write_documents\n"
        "from hornbook.storyworld.questions import held_out_questions\n"
        "n = dict(stories=30, echoes=5, inventories=5, still_lives=5, puzzles=10, sums=10, encyclopedia_passages=20,"
        " conversations=50)\n"
        "world = StoryworldSection(**n)\n"
        "asked = [held_out_questions(suite, 20, world) for suite in ('comprehension', 'reasoning', 'facts')]\n"
        "written = [list(write_documents(world)), list(conversations(world)), asked]\n"
        "print(hash('a text'), hashlib.sha256(repr(written).encode()).hexdigest())\n"
    )
    hashes, worlds = set(), set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        own_hash, world = done.stdout.split()
        hashes.add(own_hash)
        worlds.add(world)
    assert len(hashes) == 2
    assert len(worlds) == 1
