"""The suites' questions: right by an independent reckoning, fair to the other choices, and never seen in training."""

import re
from collections import Counter

import pytest

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.conversations import checkable_prompts, conversations
from hornbook.storyworld.corpus import write_documents
from hornbook.storyworld.encyclopedia import ask, facts
from hornbook.storyworld.encyclopedia import is_held_out as fact_is_held_out
from hornbook.storyworld.puzzles import draw_puzzle, is_held_out
from hornbook.storyworld.questions import N_CHOICES, Question, essence, grade, held_out_questions

SUITES = ("comprehension", "reasoning", "facts")
SECTION = StoryworldSection(
    stories=1500,
    echoes=50,
    inventories=50,
    still_lives=300,
    puzzles=220,
    sums=280,
    encyclopedia_passages=500,
    conversations=1500,
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
PUZZLE_KINDS = {"sum": "got", "difference": "gave", "ranking": "than", "calendar": "week", "syllogism": "Every"}


@pytest.fixture(scope="module")
def questions() -> dict[str, list[Question]]:
    return {suite: held_out_questions(suite, 1000, SECTION) for suite in SUITES}


@pytest.fixture(scope="module")
def corpus() -> str:
    return "\n\n".join(document.text for document in write_documents(SECTION))


@pytest.fixture(scope="module")
def talks() -> list[str]:
    """Everything said in the conversations, a message each."""
    return [turn["content"] for turns in conversations(SECTION) for turn in turns]


def solve(puzzle: str) -> str:
    """The answer to a puzzle from its words alone."""
    numbers = re.search(r"had (\d) bags of \w+ and (got|gave) (\d)", puzzle)
    if numbers:
        first, verb, second = numbers.groups()
        if verb == "got":
            return f"{first} and {second} make {int(first) + int(second)}."
        return f"{first} less {second} is {int(first) - int(second)}."
    day = re.search(r"set out with \w+ on a (\w+)\..* (\w+) days later\?", puzzle)
    if day:
        return f"It was then {DAYS[(DAYS.index(day[1]) + NUMBERS[day[2]]) % 7]}."
    beaten = dict(re.findall(r"(\w+) was \w+er than (\w+)\.", puzzle))
    if beaten:
        (first,), (last,) = set(beaten) - set(beaten.values()), set(beaten.values()) - set(beaten)
        end = re.search(r"the (\w+est) of", puzzle)[1]
        return f"The {end} was called {first if re.match('tall|old|fast|strong|rich', end) else last}."
    liked = dict(re.findall(r"Every (\w+) liked (\w+)\.", puzzle))
    membership, role = re.search(r"([A-Z]\w+ was an? (\w+))\.", puzzle).groups()
    return f"{membership}, and every {role} liked {liked[role]}."


def last_word(answer: str) -> str:
    """The word on which an answer about a story depends."""
    return answer.rstrip(".").split()[-1].lower()


def pairs_of_numbers(texts: list[str]) -> set[tuple[int, int]]:
    """The pairs in sums and differences."""
    found = [re.search(r"had (\d) bags of \w+ and (?:got|gave) (\d)", text) for text in texts]
    return {(int(pair[1]), int(pair[2])) for pair in found if pair}


@pytest.mark.parametrize("suite", SUITES)
def test_there_are_four_different_choices_and_the_answer_is_where_gold_says(questions, suite):
    assert len(questions[suite]) == 1000
    for question in questions[suite]:
        assert question.suite == suite
        assert len(set(map(essence, question.choices))) == len(question.choices) == N_CHOICES
        assert question.choices[question.gold] == question.answer
        assert question.question.endswith("?")


@pytest.mark.parametrize("suite", SUITES)
def test_of_the_four_choices_only_the_answer_is_graded_right(questions, suite):
    for question in questions[suite]:
        assert [grade(question, choice) for choice in question.choices].index(True) == question.gold
        assert sum(grade(question, choice) for choice in question.choices) == 1


@pytest.mark.parametrize("suite", ["comprehension", "facts"])
def test_the_position_of_the_right_answer_gives_nothing_away(questions, suite):
    positions = Counter(question.gold for question in questions[suite])
    for position in range(N_CHOICES):
        assert 0.18 < positions[position] / len(questions[suite]) < 0.32


@pytest.mark.parametrize("kind", PUZZLE_KINDS)
def test_the_position_of_the_right_answer_gives_nothing_away_in_any_kind_of_puzzle(kind):
    puzzles = [draw_puzzle(Chance("positions", number), held_out=True) for number in range(4000)]
    of_kind = [puzzle for puzzle in puzzles if PUZZLE_KINDS[kind] in puzzle.text.split()]
    positions = Counter(puzzle.choices.index(puzzle.answer) for puzzle in of_kind)
    assert len(of_kind) > 500
    for position in range(N_CHOICES):
        # Not quite a quarter each: what is left of a few bags cannot be the largest of four numbers.
        assert 0.05 < positions[position] / len(of_kind) < 0.4, positions


@pytest.mark.parametrize("suite", SUITES)
def test_the_same_seed_asks_the_same_questions_and_another_seed_others(questions, suite):
    assert held_out_questions(suite, 50, SECTION) == questions[suite][:50]
    others = held_out_questions(suite, 50, SECTION.model_copy(update={"seed": 2}))
    assert sum(one == other for one, other in zip(others, questions[suite], strict=False)) < 5


def test_all_choices_of_comprehension_stand_in_the_story(questions):
    for question in questions["comprehension"]:
        words = set(re.findall(r"\w+", question.context.lower()))
        assert {last_word(choice) for choice in question.choices} <= words


def test_answers_about_a_story_are_those_of_an_independent_reader(questions, reader_class):
    for question in questions["comprehension"]:
        reader = reader_class()
        reader.read(question.context)
        assert last_word(question.answer) == reader.answer(question.question).lower()


def test_every_kind_of_question_about_a_story_is_asked(questions):
    kinds = Counter(" ".join(question.question.split()[:2]) for question in questions["comprehension"])
    assert set(kinds) == {"Who had", "Where was", "What colour", "What was"}
    assert min(kinds.values()) > 50


def test_answers_to_puzzles_are_those_of_an_independent_reckoning(questions):
    for question in questions["reasoning"]:
        assert solve(question.question) == question.answer, question
    for kind, sign in PUZZLE_KINDS.items():
        assert (
            sum(
                sign in question.question.split() or f"{sign}?" in question.question
                for question in questions["reasoning"]
            )
            > 100
        ), kind


def test_solved_puzzles_of_the_corpus_are_right(corpus):
    puzzles = re.findall(r"^.*(?: bags |days later\?|Who was the \w+est |What was the food ).*$", corpus, re.MULTILINE)
    assert len(puzzles) == SECTION.puzzles + SECTION.sums
    for puzzle in puzzles:
        assert puzzle.endswith(f"? {solve(puzzle)}"), puzzle


def test_held_out_sums_and_differences_use_pairs_that_training_never_shows(questions, corpus, talks):
    asked = pairs_of_numbers([question.question for question in questions["reasoning"]])
    prompts = [question.question for question in checkable_prompts(SECTION, 500)]
    for training in (corpus.split("\n\n"), talks, prompts):
        shown = pairs_of_numbers(training)
        assert len(shown) > 20
        assert not any(is_held_out(*pair) for pair in shown)
    assert len(asked) > 10
    assert all(is_held_out(*pair) for pair in asked)


def test_held_out_facts_are_asked_for_in_the_suite_alone_and_stated_in_the_corpus(questions, corpus, talks):
    asks = {fact: {ask(fact, wording) for wording in fact.relation.questions} for fact in facts()}
    kept = set().union(*(asks[fact] for fact in facts() if fact_is_held_out(fact)))
    shown = set().union(*(asks[fact] for fact in facts() if not fact_is_held_out(fact)))
    in_suite = {question.question for question in questions["facts"]}
    in_corpus = {question for question in kept | shown if question in corpus}
    assert in_suite <= kept
    assert not kept & in_corpus
    assert not kept & set(talks)
    assert len(shown & in_corpus) > 0.7 * len(shown)
    assert len(shown & set(talks)) > 0.4 * len(shown)
    for fact in facts():
        statements = fact.relation.statements
        assert any(told(fact, wording) in corpus for wording in statements), fact


def told(fact, wording: str) -> str:
    """The statement from its second word on, where no article and no large letter depends on what stands before."""
    return re.sub(r"\ba (?=[aeiou])", "an ", wording.format(subject=fact.subject, value=fact.value)).split(" ", 1)[1]


def test_no_held_out_story_nor_a_paragraph_of_it_occurs_in_the_corpus_or_the_conversations(questions, corpus, talks):
    known = {paragraph for text in (corpus, *talks) for paragraph in text.split("\n\n")}
    held_out = {paragraph for question in questions["comprehension"] for paragraph in question.context.split("\n\n")}
    assert len(held_out) == 3 * 1000
    assert len(known) > 3 * SECTION.stories
    assert not held_out & known


BARN = Question("comprehension", "", "Where was the kite?", "At the barn.", ("At the barn.", "At the mill."), 0)


@pytest.mark.parametrize(
    "text", ["barn", "At the barn.", "at the Barn", " the  BARN!\n", "At the barn. I hope that helps."]
)
def test_an_answer_is_right_whatever_its_case_punctuation_little_words_and_courtesy(text):
    assert grade(BARN, text)


@pytest.mark.parametrize(
    "text",
    [
        "At the mill.",
        "",
        "   ",
        "At the.",
        "the barn or the mill",
        "the mill, not the barn",
        "barns",
        "bar n",
        "I hope that helps.",
    ],
)
def test_another_place_nothing_or_several_places_are_wrong(text):
    assert not grade(BARN, text)


def test_a_number_is_graded_as_a_whole():
    question = Question("reasoning", "", "How many bags were left?", "1.", ("1.", "2."), 0)
    assert grade(question, "1")
    assert not grade(question, "11.")
    assert not grade(question, "1 2")
