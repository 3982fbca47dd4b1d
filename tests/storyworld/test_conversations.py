"""What fine-tuning learns from: real conversations, with answers that are right."""

import re
from collections import Counter

import pytest

from hornbook.recipe_data import StoryworldSection
from hornbook.storyworld.chance import Chance
from hornbook.storyworld.conversations import (
    IN_SHORT,
    Conversation,
    checkable_prompts,
    conversations,
    list_the_cast,
    preferences,
    tell_a_story,
)
from hornbook.storyworld.questions import COURTESIES, essence, grade, without_courtesy
from hornbook.tokenizer.chat import check_messages

SECTION = StoryworldSection(conversations=3000)
QUESTION_OF_A_STORY = re.compile(r"(?:Who had|Where was|What colour was|Who was|What was) (?:the )?\w+\?")


@pytest.fixture(scope="module")
def talks() -> list[Conversation]:
    return list(conversations(SECTION))


def spoken(talk: Conversation) -> Conversation:
    """The conversation without its system message."""
    return [turn for turn in talk if turn["role"] != "system"]


def last_word(sentence: str) -> str:
    return without_courtesy(sentence).rstrip(".?").split()[-1].lower()


def about_stories(talks: list[Conversation]) -> list[tuple[str, bool, list[tuple[str, str]]]]:
    """Of each conversation about a story: the story, whether short answers are wished for, questions and answers."""
    found = []
    for talk in talks:
        turns = [turn["content"] for turn in spoken(talk)]
        story, _, first_question = turns[0].rpartition("\n\n")
        asked = list(zip([first_question, *turns[2::2]], turns[1::2], strict=True))
        if story and all(QUESTION_OF_A_STORY.fullmatch(question) for question, _ in asked):
            found.append((story, talk[0]["content"] == IN_SHORT, asked))
    return found


def test_user_and_assistant_take_turns_and_the_assistant_has_the_last_word(talks):
    assert len(talks) == SECTION.conversations
    for talk in talks:
        check_messages(talk, before_answer=False)
        assert talk[-1]["role"] == "assistant"
        assert all(turn["content"] for turn in talk)


def test_some_conversations_have_a_system_message_and_most_have_several_turns(talks):
    n_with_system = sum(talk[0]["role"] == "system" for talk in talks)
    turns = Counter(len(spoken(talk)) for talk in talks)
    assert 0.015 < n_with_system / len(talks) < 0.3
    assert sum(count for n_turns, count in turns.items() if n_turns > 2) > len(talks) / 2
    assert turns[2] > 50


def test_the_same_section_has_the_same_conversations_and_another_seed_has_others(talks):
    assert list(conversations(SECTION)) == talks
    others = conversations(SECTION.model_copy(update={"seed": 2}))
    first_words = {talk[-2]["content"] for talk in talks if "\n\n" in talk[-2]["content"]}
    assert first_words
    assert not first_words & {talk[-2]["content"] for talk in others}


def test_answers_about_a_story_are_those_of_an_independent_reader(talks, reader_class):
    n_answers = 0
    for story, _, asked in about_stories(talks):
        reader = reader_class()
        reader.read(story)
        assert len({question for question, _ in asked}) == len(asked)
        for question, answer in asked:
            assert last_word(answer) == reader.answer(question).lower()
            n_answers += 1
    assert n_answers > 2 * len(talks)


def test_an_answer_is_a_sentence_that_repeats_what_was_asked_for_unless_a_word_is_wished_for(talks):
    n_short = n_long = 0
    for _, in_short, asked in about_stories(talks):
        for question, answer in asked:
            if in_short:
                assert len(answer.split()) == 1
                n_short += 1
            else:
                assert last_word(question) in answer.lower().split()
                n_long += 1
    assert n_short > 100
    assert n_long > 1000


def test_the_list_of_the_cast_names_everybody_once_in_order_of_appearance(reader_class):
    for number in range(100):
        (wish, reply) = list_the_cast(Chance("cast", number))
        story, _, _ = wish["content"].rpartition("\n\n")
        reader = reader_class()
        reader.read(story)
        assert re.findall(r"[A-Z]\w+", reply["content"]) == list(reader.role)
        assert len(reader.role) >= 2


def test_a_story_told_on_a_wish_has_in_it_what_was_wished_for(reader_class):
    for number in range(50):
        wish, story = tell_a_story(Chance("wish", number))
        name, noun = re.search(r"([A-Z]\w+) and an? (\w+)\.", wish["content"]).groups()
        reader = reader_class()
        reader.read(story["content"])
        assert not reader.unread
        assert name in reader.role
        assert noun in reader.colour


def test_of_two_answers_to_a_question_about_a_story_the_better_is_right(reader_class):
    pairs = list(preferences(SECTION, 300))
    assert len(pairs) == 300
    kinds = Counter()
    for pair in pairs:
        check_messages(pair.prompt, before_answer=True)
        story, _, question = pair.prompt[-1]["content"].rpartition("\n\n")
        assert QUESTION_OF_A_STORY.fullmatch(question)
        reader = reader_class()
        reader.read(story)
        assert last_word(pair.chosen) == reader.answer(question).lower()
        answer = without_courtesy(pair.chosen)
        assert pair.chosen.removeprefix(f"{answer} ") in COURTESIES
        if pair.rejected == answer:
            kinds["curt"] += 1
        elif answer not in pair.rejected:
            assert last_word(pair.rejected) != last_word(pair.chosen)
            kinds["wrong"] += 1
        else:
            assert essence(pair.rejected) != essence(pair.chosen)
            kinds["rude" if pair.rejected.count(answer) == 1 else "long-winded"] += 1
    assert set(kinds) == {"wrong", "curt", "rude", "long-winded"}
    assert min(kinds.values()) > 20


def test_checkable_prompts_accept_their_own_answer_and_no_other():
    prompts = list(checkable_prompts(SECTION, 300))
    assert len({prompt.question for prompt in prompts}) > 250
    for prompt in prompts:
        assert grade(prompt, prompt.answer)
        assert not any(grade(prompt, choice) for choice in prompt.choices if choice != prompt.answer)
        assert re.search(r" bags of \w+ and (?:got|gave) \d ", prompt.question)


def test_now_and_then_a_conversation_is_courteous_and_then_in_all_its_answers(talks):
    n_courteous = 0
    for talk in talks:
        answers = [turn["content"] for turn in talk if turn["role"] == "assistant"]
        is_courteous = {answer.endswith(COURTESIES) for answer in answers}
        assert len(is_courteous) == 1
        n_courteous += is_courteous == {True}
    assert 0.1 < n_courteous / len(talks) < 0.25
