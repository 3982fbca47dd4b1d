"""Where conversations come from: the storyworld, or files in the two common forms.

A row of a file is either `{"messages": [{"role": …, "content": …}, …]}` or an instruction with `output` (or `response`)
and, where there is more to it, `input`. A row that is neither stops the run with its place: training data is not
guessed at.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow

from hornbook.corpus.benchmarks import Benchmark
from hornbook.corpus.decontaminate import Receipt, find_overlaps
from hornbook.corpus.deduplicate import plain_texts
from hornbook.corpus.files import find_files
from hornbook.corpus.passages import index_passages
from hornbook.errors import UserError
from hornbook.recipe import StoryworldSection
from hornbook.storyworld.conversations import conversations as storyworld_conversations
from hornbook.tokenizer.chat import Message, check_messages

_ANSWER_FIELDS = ("output", "response")


def read_conversations(sources: Sequence[str], world: StoryworldSection) -> Iterator[Sequence[Message]]:
    """All conversations of the sources, one source after the other.

    Raises UserError where a source is of no known form, or a row is not a conversation.
    """
    for source in sources:
        if source == "storyworld":
            yield from storyworld_conversations(world)
        elif source.startswith("files:"):
            for path in find_files(source.removeprefix("files:")):
                yield from _read_file(path)
        else:
            raise UserError(f"finetune.source: {source!r} is neither storyworld nor files:PATH")


def decontaminate(
    conversations: Iterable[Sequence[Message]], benchmarks: Sequence[Benchmark]
) -> tuple[list[tuple[int, Sequence[Message]]], dict[str, Any]]:
    """The conversations that give away no item of a benchmark, each with its number, and a receipt of the others.

    What gives an item away is the same as in the corpus, and so is the receipt (see `corpus.decontaminate`); a
    document is there the number of a conversation among all, from 0.
    """
    talks = list(conversations)
    passages = index_passages(benchmarks)
    receipt = Receipt(benchmarks, passages)
    found = find_overlaps(plain_texts(["\n".join(turn["content"] for turn in talk) for talk in talks]), passages)
    touched = [number for number in range(len(talks)) if found[number]]
    if touched:
        ids, overlaps = [str(number) for number in touched], [found[number] for number in touched]
        receipt.add(pyarrow.table({"id": ids, "source": ["conversations"] * len(touched), "overlaps": overlaps}))
    kept = [(number, talk) for number, talk in enumerate(talks) if not found[number]]
    return kept, receipt.finish()


def _read_file(path: Path) -> Iterator[Sequence[Message]]:
    for place, row in _rows(path):
        conversation = _conversation(row)
        if conversation is None:
            fields = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise UserError(
                f"{place}: is no conversation; it needs messages, or instruction and output, but has: {fields}"
            )
        try:
            _check(conversation)
        except UserError as problem:
            raise UserError(f"{place}: {problem}") from None
        yield conversation


def _check(conversation: Sequence[Message]) -> None:
    """Raise UserError unless it is a conversation in which every answer says something."""
    check_messages(conversation, before_answer=False)
    answers = [turn["content"] for turn in conversation if turn["role"] == "assistant"]
    if not answers:
        raise UserError("There is no answer from the assistant, so there is nothing to learn. Remove the row.")
    if not all(answer.strip() for answer in answers):
        raise UserError("An answer of the assistant is empty, and would teach silence. Remove the row.")


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Every row of a json or jsonl file, perhaps gzipped, with its place for messages."""
    text = _text(path)
    if ".jsonl" in path.suffixes:
        # Not splitlines: JSON may hold line ends of other kinds, such as U+2028, as they are.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield place, _from_json(line, place)
    else:
        rows = _from_json(text, str(path))
        if not isinstance(rows, list):
            raise UserError(f"{path}: holds no list of conversations")
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: cannot be read as UTF-8 text, plain or gzipped ({problem})") from None


def _from_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise UserError(f"{place}: is not valid JSON ({problem})") from None


def _conversation(row: Any) -> Sequence[Message] | None:
    if not isinstance(row, dict):
        return None
    messages = row.get("messages")
    if isinstance(messages, list) and all(isinstance(message, dict) for message in messages):
        return messages
    answer = next((row[field] for field in _ANSWER_FIELDS if isinstance(row.get(field), str)), None)
    if not isinstance(row.get("instruction"), str) or answer is None:
        return None
    request = row["instruction"] + (f"\n\n{row['input']}" if row.get("input") else "")
    return [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
