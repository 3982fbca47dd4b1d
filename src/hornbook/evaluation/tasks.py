"""How a question is put to a model, and how its answer is read.

A base model continues text, so it gets plain text that an answer would continue: what the question is about,
a blank line, the question. A fine-tuned model talks, so it gets the same text as the user's turn of a
conversation, in the very form in which it was trained.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from hornbook.storyworld.questions import Question, grade
from hornbook.tokenizer.chat import END_OF_TURN, Message, render
from hornbook.tokenizer.tokenizer import Tokenizer

_SENTENCE = re.compile(r"\s*[^.?!\n]*[.?!]?")


@dataclass(frozen=True)
class Task:
    """A question in tokens, and how to read what a model writes after it.

    Attributes:
        prompt: the tokens before the answer.
        choices: the tokens of each of the question's choices, as they would follow the prompt.
        stop_ids: tokens that end an answer, besides <|endoftext|>.
        read: what counts as the answer, of the text that the model wrote.
    """

    question: Question
    prompt: list[int]
    choices: list[list[int]]
    stop_ids: tuple[int, ...]
    read: Callable[[str], str]

    def is_right(self, written: str) -> bool:
        """Whether what the model wrote is the answer."""
        return grade(self.question, self.read(written))


AskAs = Callable[[Question, Tokenizer], Task]


def as_text(question: Question, tokenizer: Tokenizer) -> Task:
    """The question as text to be continued, for a base model. Its answer is the first sentence it writes."""
    # Split patterns begin a word at the blank before it, so encoding the two parts apart changes nothing.
    choices = [tokenizer.encode(f" {choice}") for choice in question.choices]
    return Task(question, tokenizer.encode(base_prompt(question)), choices, (), first_sentence)


def as_chat(question: Question, tokenizer: Tokenizer) -> Task:
    """The question as a conversation, for a fine-tuned model. Its answer is its whole turn.

    A choice is the whole turn as well: to say less or more than it is another answer.
    """
    asked = messages(question)
    prompt, _ = render(asked, tokenizer, add_generation_prompt=True)
    choices = []
    for choice in question.choices:
        ids, is_learned = render([*asked, {"role": "assistant", "content": choice}], tokenizer)
        choices.append([token for token, learned in zip(ids, is_learned, strict=True) if learned])
    return Task(question, prompt, choices, (tokenizer.special_id(END_OF_TURN),), str.strip)


def base_prompt(question: Question) -> str:
    """The text that an answer continues."""
    return question.prompt


def messages(question: Question) -> list[Message]:
    """The conversation that an answer continues."""
    return [{"role": "user", "content": question.prompt}]


def first_sentence(text: str) -> str:
    """The text up to its first full stop, question mark, exclamation mark or line end."""
    found = _SENTENCE.match(text)
    return found.group().strip() if found else ""
