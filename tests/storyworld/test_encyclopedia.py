"""The world's facts: each stated in many ways, none to be taken for another, in English that can be read."""

import re
from collections import Counter

import pytest

from hornbook.storyworld.chance import Chance
from hornbook.storyworld.encyclopedia import Fact, ask, facts, is_held_out, passage
from hornbook.storyworld.wording import a, capitalised, with_articles

MIN_STATEMENTS = 6


def statements(fact: Fact) -> list[str]:
    """All the ways in which a fact is stated."""
    fill = {"subject": fact.subject, "value": fact.value}
    return [capitalised(with_articles(wording.format(**fill))) for wording in fact.relation.statements]


def questions_with_answers(fact: Fact) -> list[str]:
    return [
        f"{ask(fact, wording)} {fact.relation.answer(fact.subject, fact.value)}" for wording in fact.relation.questions
    ]


@pytest.fixture(scope="module")
def passages() -> list[str]:
    return ["".join(passage(Chance("passage", number))) for number in range(1500)]


def test_there_are_a_hundred_facts_and_no_two_contradict_each_other():
    assert len(facts()) > 100
    about = Counter((fact.relation.name, fact.subject) for fact in facts())
    assert set(about.values()) == {1}


def test_every_fact_is_stated_in_at_least_six_ways_which_all_name_both_its_sides():
    for fact in facts():
        said = statements(fact)
        assert len(set(said)) == len(said) >= MIN_STATEMENTS
        for sentence in said:
            assert fact.subject.lower() in sentence.lower()
            assert fact.value.lower() in sentence.lower()


def test_statements_of_different_facts_never_coincide():
    stated = Counter(sentence for fact in facts() for sentence in statements(fact))
    assert len(stated) >= MIN_STATEMENTS * len(facts())
    assert stated.most_common(1)[0][1] == 1


def test_questions_about_different_facts_never_coincide_and_do_not_give_the_answer_away():
    asked = Counter(ask(fact, wording) for fact in facts() for wording in fact.relation.questions)
    assert asked.most_common(1)[0][1] == 1
    for fact in facts():
        for wording in fact.relation.questions:
            assert not re.search(rf"\b{fact.value}\b", ask(fact, wording))


def test_a_passage_is_made_of_statements_and_of_questions_with_their_answers(passages):
    known = {sentence for fact in facts() for sentence in statements(fact) + questions_with_answers(fact)}
    for text in passages[:300]:
        # Cut after each full stop: a question stands in one piece with its answer.
        pieces = re.findall(r"[^.]+\.", text)
        assert len(pieces) >= 4
        assert {piece.strip() for piece in pieces} <= known


def test_enough_passages_state_every_fact_in_every_way(passages):
    told = {piece.strip() for text in passages for piece in re.findall(r"[^.]+\.", text)}
    every = {sentence for fact in facts() for sentence in statements(fact)}
    assert len(every & told) > 0.9 * len(every)
    assert all(told & set(statements(fact)) for fact in facts())


def test_a_held_out_fact_is_told_but_never_asked_for(passages):
    text = " ".join(passages)
    for fact in facts():
        n_asked = sum(question in text for question in questions_with_answers(fact))
        assert n_asked == 0 if is_held_out(fact) else n_asked > 0, fact


def test_about_a_third_of_the_facts_is_held_out():
    assert 0.2 < sum(map(is_held_out, facts())) / len(facts()) < 0.47
    held_out = {fact.relation.name for fact in facts() if is_held_out(fact)}
    assert held_out == {fact.relation.name for fact in facts()}


def test_a_vowel_takes_an_and_other_letters_take_a(passages):
    assert (a("owl"), a("barn")) == ("an owl", "a barn")
    assert with_articles("A owl and a barn saw a anchor.") == "An owl and a barn saw an anchor."
    text = " ".join(passages)
    assert " an owl " in text
    assert not re.search(r"\b[Aa] [aeiou]", text)
    assert not re.search(r"\b[Aa]n [^aeiou]", text)
