"""What a model is shown of a question, and what counts as its answer."""

from collections.abc import Sequence

import pytest

from hornbook.evaluation.tasks import as_chat, as_text, base_prompt, first_sentence, messages
from hornbook.storyworld.questions import Question
from hornbook.tokenizer.tokenizer import Tokenizer

KITE = Question(
    "comprehension", "Mira had the kite.", "Who had the kite?", "Mira.", ("Ann.", "Mira.", "Tom.", "Zoe."), 1
)


def test_a_base_model_sees_context_and_question_as_text(tokenizer: Tokenizer) -> None:
    assert base_prompt(KITE) == "Mira had the kite.\n\nWho had the kite?"
    assert tokenizer.decode(as_text(KITE, tokenizer).prompt) == base_prompt(KITE)


def test_a_choice_follows_the_text_in_the_tokens_of_the_whole(
    tokenizer: Tokenizer, questions: Sequence[Question]
) -> None:
    for question in questions:
        task = as_text(question, tokenizer)
        for choice, ids in zip(question.choices, task.choices, strict=True):
            assert task.prompt + ids == tokenizer.encode(f"{base_prompt(question)} {choice}")


def test_a_fine_tuned_model_sees_a_turn_of_a_conversation(tokenizer: Tokenizer) -> None:
    task = as_chat(KITE, tokenizer)
    user, end, assistant = map(tokenizer.special_id, ("<|user|>", "<|end|>", "<|assistant|>"))

    assert messages(KITE) == [{"role": "user", "content": KITE.prompt}]
    assert task.prompt == [user, *tokenizer.encode(KITE.prompt), end, assistant]
    assert task.choices[1] == [*tokenizer.encode("Mira."), end]
    assert task.stop_ids == (end,)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (" Mira. Where was Tom? At home.", "Mira."),
        (" At the barn\n\nThen Tom", "At the barn"),
        (" 12.", "12."),
        ("Yes! No.", "Yes!"),
        ("", ""),
        ("Mira", "Mira"),
    ],
)
def test_a_base_models_answer_is_its_first_sentence(written: str, sentence: str) -> None:
    assert first_sentence(written) == sentence


def test_right_is_what_says_the_answer_and_nothing_else(tokenizer: Tokenizer) -> None:
    text, chat = as_text(KITE, tokenizer), as_chat(KITE, tokenizer)

    assert text.is_right(" Mira. Where was Mira?")
    assert not text.is_right(" Tom. Mira.")
    assert chat.is_right("Mira.")
    assert chat.is_right(" mira ")
    assert not chat.is_right("Mira. Or Tom.")
    assert not chat.is_right("")
