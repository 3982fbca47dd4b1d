"""A suite of questions, answered twice: by choosing among given answers, and freely.

A model chooses the answer to which it gives the highest probability, which shows what it knows even where it
does not know how to answer. Freely it writes whatever is likeliest, token after token, and that is graded
exactly. A tie is never a right answer: a broken model, to which everything is as likely, must not score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hornbook.errors import UserError
from hornbook.evaluation.scores import SuiteScores, share, standard_error
from hornbook.evaluation.tasks import AskAs, Task
from hornbook.inference.engine import Engine
from hornbook.storyworld.questions import Question

_ANSWER_TOKENS = 40
_TRANSCRIPT_CHARACTERS = 160


@dataclass(frozen=True)
class Answered:
    """What a model made of one question.

    Attributes:
        prompt_end: the last of what the model was shown, as text.
        choice_nats: the log-probability of each choice.
        answer: what it wrote, as far as it counts as its answer.
        is_right: whether that is the answer.
        is_cut: whether the beginning of the prompt did not fit in the model's context.
    """

    question: Question
    prompt_end: str
    choice_nats: tuple[float, ...]
    answer: str
    is_right: bool
    is_cut: bool

    @property
    def chose_right(self) -> bool:
        """Whether the right choice is likelier than all others."""
        return _is_highest(self.choice_nats, self.question.gold)

    @property
    def chose_right_normalised(self) -> bool:
        """The same, with the log-probability divided by the bytes of the choice: long ones are no handicap."""
        sizes = [len(choice.encode()) for choice in self.question.choices]
        per_byte = [nats / size for nats, size in zip(self.choice_nats, sizes, strict=True)]
        return _is_highest(per_byte, self.question.gold)

    def transcript(self) -> dict[str, Any]:
        """The answer as a table for a JSON file."""
        return {
            "prompt_end": self.prompt_end,
            "expected": self.question.answer,
            "answer": self.answer,
            "right": self.is_right,
            "choices": dict(zip(self.question.choices, self.choice_nats, strict=True)),
            "chose_right": self.chose_right,
            "chose_right_normalised": self.chose_right_normalised,
        }


def answer_questions(engine: Engine, questions: Sequence[Question], ask_as: AskAs) -> list[Answered]:
    """Put every question to the model, as text or as chat (see tasks.py); the answers in the questions' order.

    A prompt that does not fit in the model's context together with an answer loses its beginning. Raises
    UserError where there are no questions, or where a choice alone is longer than the context.
    """
    if not questions:
        raise UserError("there are no questions to ask: set evaluate.questions_per_suite to 1 or more")
    tasks = [ask_as(question, engine.tokenizer) for question in questions]
    context_tokens = engine.model.config.max_seq_len
    prompts = [_fitting(task, context_tokens) for task in tasks]
    choice_nats = iter(
        engine.score(
            [prompt for task, prompt in zip(tasks, prompts, strict=True) for _ in task.choices],
            [choice for task in tasks for choice in task.choices],
        )
    )
    written = engine.generate(prompts, _ANSWER_TOKENS, stop_ids=tasks[0].stop_ids)
    answered = []
    for task, prompt, ids in zip(tasks, prompts, written, strict=True):
        text = engine.tokenizer.decode(ids)
        answered.append(
            Answered(
                question=task.question,
                prompt_end=engine.tokenizer.decode(prompt)[-_TRANSCRIPT_CHARACTERS:],
                choice_nats=tuple(next(choice_nats) for _ in task.choices),
                answer=task.read(text),
                is_right=task.is_right(text),
                is_cut=len(prompt) < len(task.prompt),
            )
        )
    return answered


def suite_scores(answered: Sequence[Answered]) -> SuiteScores:
    """The figures of one suite's answers, at least one."""
    chosen = [one.chose_right for one in answered]
    chosen_normalised = [one.chose_right_normalised for one in answered]
    right = [one.is_right for one in answered]
    return {
        "choice": share(chosen),
        "choice_stderr": standard_error(chosen),
        "choice_normalised": share(chosen_normalised),
        "choice_normalised_stderr": standard_error(chosen_normalised),
        "free": share(right),
        "free_stderr": standard_error(right),
        "chance": sum(1 / len(one.question.choices) for one in answered) / len(answered),
        "n": len(answered),
        "n_cut": sum(one.is_cut for one in answered),
    }


def _fitting(task: Task, context_tokens: int) -> list[int]:
    """The end of the prompt that leaves room for every choice and for an answer: the question stands there."""
    longest_answer = max(_ANSWER_TOKENS, *map(len, task.choices))
    room = max(context_tokens - longest_answer, context_tokens // 2)
    return task.prompt[-room:]


def _is_highest(values: Sequence[float], gold: int) -> bool:
    return all(values[gold] > value for place, value in enumerate(values) if place != gold)
