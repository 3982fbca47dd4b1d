"""Where prompts with a checkable answer come from: the storyworld's puzzles, files in the common forms, or a hub.

A row has `prompt` (a text) or `question`, and `answer` or `solution`; of GSM8K's answers, what stands behind "####" is
the answer. It is graded as the evaluation grades: exactly, but for case, punctuation and little words.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from hornbook.errors import UserError
from hornbook.recipe_data import StoryworldSection
from hornbook.stages.rows import fields_of, read_rows
from hornbook.storyworld.conversations import checkable_prompts
from hornbook.storyworld.questions import Question, essence

_BEFORE_THE_ANSWER = "####"


def read_checkable(sources: Sequence[str], world: StoryworldSection, prompts: int) -> Iterator[Question]:
    """All prompts of the sources, one source after the other; of the storyworld, which has no end, `prompts`.

    Raises UserError where a source is of no known form, a row is none, or an answer has no word to be checked.
    """
    for source in sources:
        if source == "storyworld":
            yield from checkable_prompts(world, prompts)
            continue
        for place, row in read_rows(source, "reinforce.source"):
            question = _question(row)
            if question is None:
                raise UserError(
                    f"{place}: is no prompt with an answer; it needs prompt or question, and answer or solution, "
                    f"as texts, but has: {fields_of(row)}"
                )
            if not question.prompt.strip() or not essence(question.answer):
                raise UserError(f"{place}: its prompt or its answer is empty, so nothing can be checked. Remove it.")
            yield question


def _question(row: Any) -> Question | None:
    if not isinstance(row, dict):
        return None
    prompt = next((row[field] for field in ("prompt", "question") if isinstance(row.get(field), str)), None)
    answer = next((row[field] for field in ("answer", "solution") if isinstance(row.get(field), str)), None)
    if prompt is None or answer is None:
        return None
    answer = answer.rpartition(_BEFORE_THE_ANSWER)[2].strip()
    return Question("checkable", "", prompt, answer, (answer,), 0)
