"""Puzzles: small problems whose answer follows from what is said, with one kind of thought each.

Some pairs of numbers, and of a day and a number, are held back: a held-out sum was never seen in training, only others
like it. Every answer is a sentence in which what it follows from is said again: a small model finds that by looking
back, and then has what it needs side by side ("3 and 5 make 8.").
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hornbook.runtime import derive_seed
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.wording import a
from hornbook.storyworld.world import lexicon, names, others

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COMPARISONS = (
    ("taller", "tallest", "shortest"),
    ("older", "oldest", "youngest"),
    ("faster", "fastest", "slowest"),
    ("stronger", "strongest", "weakest"),
    ("richer", "richest", "poorest"),
)
NUMBER_WORDS = ("one", "two", "three", "four", "five", "six")
LARGEST_NUMBER = 9
N_CHOICES = 4


@dataclass(frozen=True)
class Puzzle:
    """A problem: what is given, what is asked, the answer, and all the answers to choose from."""

    given: str
    question: str
    answer: str
    choices: tuple[str, ...]

    @property
    def text(self) -> str:
        """The solved puzzle, as it stands in the corpus."""
        return f"{self.given} {self.question} {self.answer}"


def is_held_out(first: int, second: int) -> bool:
    """Whether a pair of numbers, or of a day and a number, is kept for the evaluation: about a fifth of all pairs."""
    return (3 * first + second) % 5 == 0


def _pair_of_numbers(chance: Chance, held_out: bool, ordered: bool) -> tuple[int, int]:
    numbers = range(1, LARGEST_NUMBER + 1)
    pairs = [(m, n) for m in numbers for n in numbers if is_held_out(m, n) == held_out and (m > n or not ordered)]
    return chance.pick(pairs)


def _place_of_answer(text: str) -> int:
    """Where the answer stands among choices in a row; hashed from the puzzle, for a draw would have to show in it."""
    return derive_seed("place of the answer", text) % N_CHOICES


def _of_numbers(given: str, question: str, answer: str, number: int) -> Puzzle:
    """A puzzle whose answer is the sentence `answer` with `number` in it, among sentences with numbers near it."""
    start = number - min(number, _place_of_answer(given))
    choices = tuple(answer.format(near) for near in range(start, start + N_CHOICES))
    return Puzzle(given, question, answer.format(number), choices)


def addition(chance: Chance, held_out: bool) -> Puzzle:
    """Somebody has some things and gets more."""
    name, food = _name(chance), chance.pick(lexicon()["foods"])
    m, n = _pair_of_numbers(chance, held_out, ordered=False)
    given = f"{name} had {m} bags of {food} and got {n} more."
    return _of_numbers(given, f"How many bags did {name} have then?", f"{m} and {n} make {{}}.", m + n)


def subtraction(chance: Chance, held_out: bool) -> Puzzle:
    """Somebody has some things and gives some away."""
    name, food = _name(chance), chance.pick(lexicon()["foods"])
    m, n = _pair_of_numbers(chance, held_out, ordered=True)
    other = chance.pick(others(names(), [name]))
    given = f"{name} had {m} bags of {food} and gave {n} to {other}."
    return _of_numbers(given, "How many bags were left?", f"{m} less {n} is {{}}.", m - n)


def ranking(chance: Chance, held_out: bool) -> Puzzle:
    """Who is at the end of a row of four, told in pairs."""
    comparative, most, least = chance.pick(COMPARISONS)
    ranked: list[str] = []
    while len(ranked) < N_CHOICES:
        ranked.append(chance.pick(others(names(), ranked)))
    steps = [f"{better} was {comparative} than {worse}." for better, worse in pairwise(ranked)]
    superlative, answer = chance.pick(((most, ranked[0]), (least, ranked[-1])))
    given = " ".join(_shuffled(chance, steps))
    choices = tuple(f"The {superlative} was called {name}." for name in sorted(ranked))
    return Puzzle(given, f"Who was the {superlative} of them?", f"The {superlative} was called {answer}.", choices)


def calendar(chance: Chance, held_out: bool) -> Puzzle:
    """Which day it is some days later."""
    laters = range(2, len(NUMBER_WORDS) + 1)
    pairs = [(day, later) for day in range(len(DAYS)) for later in laters if is_held_out(day, later) == held_out]
    today, later = chance.pick(pairs)
    answer = DAYS[(today + later) % len(DAYS)]
    role, food = chance.pick(lexicon()["roles"]), chance.pick(lexicon()["foods"])
    given = f"{_name(chance)} the {role} set out with {food} on a {DAYS[today]}."
    question = f"Which day of the week was it {NUMBER_WORDS[later - 1]} days later?"
    start = today + later - _place_of_answer(given + question)
    choices = sorted(f"It was then {DAYS[(start + offset) % len(DAYS)]}." for offset in range(N_CHOICES))
    return Puzzle(given, question, f"It was then {answer}.", tuple(choices))


def syllogism(chance: Chance, held_out: bool) -> Puzzle:
    """What holds for everybody of a trade holds for somebody of that trade."""
    roles: list[str] = []
    foods: list[str] = []
    rules = []
    while len(roles) < N_CHOICES:
        roles.append(chance.pick(others(lexicon()["roles"], roles)))
        foods.append(chance.pick(others(lexicon()["foods"], foods)))
        rules.append(f"Every {roles[-1]} liked {foods[-1]}.")
    name, member = _name(chance), chance.pick(range(N_CHOICES))
    membership = f"{name} was {a(roles[member])}"
    answer = f"{membership}, and every {roles[member]} liked {{}}."
    return Puzzle(
        " ".join([*rules, f"{membership}."]),
        f"What was the food that {name} liked?",
        answer.format(foods[member]),
        tuple(answer.format(food) for food in sorted(foods)),
    )


PuzzleMaker = Callable[[Chance, bool], Puzzle]
ARITHMETIC: tuple[PuzzleMaker, ...] = (addition, subtraction)
THOUGHT: tuple[PuzzleMaker, ...] = (ranking, calendar, syllogism)
PUZZLES: tuple[PuzzleMaker, ...] = (*ARITHMETIC, *THOUGHT)


def draw_puzzle(chance: Chance, held_out: bool, kinds: Sequence[PuzzleMaker] = PUZZLES) -> Puzzle:
    """A puzzle of one of `kinds`, each as likely as the others."""
    return chance.pick(kinds)(chance, held_out)


def puzzle_document(chance: Chance) -> Iterator[str]:
    """A puzzle that takes a thought, with its answer, as one piece of text."""
    yield draw_puzzle(chance, held_out=False, kinds=THOUGHT).text


def sum_document(chance: Chance) -> Iterator[str]:
    """A sum or a difference with its answer, as one piece of text."""
    yield draw_puzzle(chance, held_out=False, kinds=ARITHMETIC).text


def _name(chance: Chance) -> str:
    return chance.pick(names())


def _shuffled(chance: Chance, items: list[str]) -> list[str]:
    left, shuffled = list(items), []
    while left:
        shuffled.append(left.pop(chance.pick(range(len(left)))))
    return shuffled
