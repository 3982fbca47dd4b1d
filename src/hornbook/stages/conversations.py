"""Where conversations come from: the storyworld, files in the common forms, or a hub.

A row is one of

    {"messages": [{"role": …, "content": …}, …]}             OpenAI's form
    {"conversations": [{"from": …, "value": …}, …]}          ShareGPT's, perhaps with `system`
    {"instruction": …, "input": …, "output": …}              Alpaca's; also `response`, and `input` may be missing

A row that is none of these stops the run with its place: training data is not guessed at.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow

from hornbook.corpus.benchmarks import Benchmark
from hornbook.corpus.decontaminate import Receipt, find_overlaps
from hornbook.corpus.deduplicate import plain_texts
from hornbook.corpus.passages import index_passages
from hornbook.errors import UserError
from hornbook.recipe_data import StoryworldSection
from hornbook.stages.rows import fields_of, read_rows
from hornbook.storyworld.conversations import conversations as storyworld_conversations
from hornbook.tokenizer.chat import Message, check_messages

_ANSWER_FIELDS = ("output", "response")
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "chatbot": "assistant"}
"""ShareGPT's names of those who speak, beside our own."""


def read_conversations(sources: Sequence[str], world: StoryworldSection) -> Iterator[Sequence[Message]]:
    """All conversations of the sources, one source after the other.

    Raises UserError where a source is of no known form, or a row is not a conversation.
    """
    for source in sources:
        yield from read_source(source, world)


def decontaminate(
    talks: Sequence[Sequence[Message]], benchmarks: Sequence[Benchmark]
) -> tuple[list[int], dict[str, Any]]:
    """The numbers of the conversations that give away no item of a benchmark, and a receipt of the others.

    What gives an item away is the same as in the corpus, and so is the receipt (see `corpus.decontaminate`); a
    document is there the number of a conversation among all, from 0.
    """
    passages = index_passages(benchmarks)
    receipt = Receipt(benchmarks, passages)
    found = find_overlaps(plain_texts(["\n".join(turn["content"] for turn in talk) for talk in talks]), passages)
    touched = [number for number in range(len(talks)) if found[number]]
    if touched:
        ids, overlaps = [str(number) for number in touched], [found[number] for number in touched]
        receipt.add(pyarrow.table({"id": ids, "source": ["conversations"] * len(touched), "overlaps": overlaps}))
    return [number for number in range(len(talks)) if not found[number]], receipt.finish()


def read_source(source: str, world: StoryworldSection) -> Iterator[Sequence[Message]]:
    """All conversations of one source; errors as in `read_conversations`."""
    if source == "storyworld":
        yield from storyworld_conversations(world)
        return
    for place, row in read_rows(source, "finetune.source"):
        conversation = _conversation(row)
        if conversation is None:
            raise UserError(
                f"{place}: is no conversation; it needs messages, conversations, or instruction and output, "
                f"but has: {fields_of(row)}"
            )
        try:
            _check(conversation)
        except UserError as problem:
            raise UserError(f"{place}: {problem}") from None
        yield conversation


def turns_of(row: dict[str, Any]) -> list[Message] | None:
    """The turns that a row holds under `messages` or `conversations`, or None where it has neither."""
    turns = next((row[field] for field in ("messages", "conversations") if isinstance(row.get(field), list)), None)
    messages = messages_of(turns)
    if messages is None:
        return None
    system = row.get("system")
    return [{"role": "system", "content": system}, *messages] if isinstance(system, str) and system else messages


def messages_of(turns: Any) -> list[Message] | None:
    """A list of turns as messages, whether they have role and content, or from and value; None where it is none."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return None
    return [message_of(turn) for turn in turns]


def message_of(turn: dict[str, Any]) -> Message:
    """One turn as a message; what is missing or wrong in it is for `check_messages` to say."""
    if "from" not in turn:
        return turn
    speaker = turn["from"]
    return {"role": _ROLES.get(speaker, speaker) if isinstance(speaker, str) else speaker, "content": turn.get("value")}


def request_of(row: dict[str, Any]) -> str | None:
    """Alpaca's `instruction`, with its `input` below where there is one; None where the row has none."""
    if not isinstance(row.get("instruction"), str):
        return None
    return row["instruction"] + (f"\n\n{row['input']}" if row.get("input") else "")


def _conversation(row: Any) -> list[Message] | None:
    if not isinstance(row, dict):
        return None
    turns = turns_of(row)
    if turns is not None:
        return turns
    request = request_of(row)
    answer = next((row[field] for field in _ANSWER_FIELDS if isinstance(row.get(field), str)), None)
    if request is None or answer is None:
        return None
    return [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]


def _check(conversation: Sequence[Message]) -> None:
    """Raise UserError unless it is a conversation in which every answer says something."""
    check_messages(conversation, before_answer=False)
    answers = [turn["content"] for turn in conversation if turn["role"] == "assistant"]
    if not answers:
        raise UserError("There is no answer from the assistant, so there is nothing to learn. Remove the row.")
    if not all(answer.strip() for answer in answers):
        raise UserError("An answer of the assistant is empty, and would teach silence. Remove the row.")
