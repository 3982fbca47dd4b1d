"""Where pairs of a better and a worse answer come from: the storyworld, files in the common forms, or a hub.

A row has `chosen` and `rejected`, each a text, one message, or a list of messages whose last one is the answer. The
prompt is `prompt` (a text or messages), or what Alpaca's and ShareGPT's rows have; where there is none of these, it is
what stands before the answer in `chosen`, as in Anthropic's files ("\\n\\nHuman: … \\n\\nAssistant: …").
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hornbook.errors import UserError
from hornbook.recipe_data import StoryworldSection
from hornbook.stages.conversations import message_of, messages_of, request_of, turns_of
from hornbook.stages.rows import fields_of, read_rows
from hornbook.storyworld.conversations import preferences
from hornbook.tokenizer.chat import Message, check_messages

_SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")


@dataclass(frozen=True)
class PreferencePair:
    """A conversation that the user ended, and two answers to it, of which `chosen` is the better."""

    prompt: list[Message]
    chosen: str
    rejected: str


def read_preference_pairs(sources: Sequence[str], world: StoryworldSection, pairs: int) -> Iterator[PreferencePair]:
    """All pairs of the sources, one source after the other; of the storyworld, which has no end, `pairs`.

    Raises UserError where a source is of no known form, or a row is no pair. An answer may be empty: that too is
    something to prefer or not.
    """
    for source in sources:
        if source == "storyworld":
            for pair in preferences(world, pairs):
                yield PreferencePair(list(pair.prompt), pair.chosen, pair.rejected)
            continue
        for place, row in read_rows(source, "preference.source"):
            pair_of_row = _pair(row)
            if pair_of_row is None:
                raise UserError(
                    f"{place}: is no pair of answers; it needs chosen and rejected, and prompt, instruction or "
                    f"messages unless these hold the whole conversation, but has: {fields_of(row)}"
                )
            try:
                check_messages(pair_of_row.prompt, before_answer=True)
            except UserError as problem:
                raise UserError(f"{place}: {problem}") from None
            yield pair_of_row


def _pair(row: Any) -> PreferencePair | None:
    if not isinstance(row, dict):
        return None
    prompt = _prompt(row)
    chosen, rejected = _turns(row.get("chosen"), prompt), _turns(row.get("rejected"), prompt)
    if not chosen or not rejected:
        return None
    better, worse = chosen[-1].get("content"), rejected[-1].get("content")
    is_answered = all(turns[-1].get("role") == "assistant" for turns in (chosen, rejected))
    if not is_answered or not isinstance(better, str) or not isinstance(worse, str):
        return None
    return PreferencePair(prompt or chosen[:-1], better, worse)


def _prompt(row: dict[str, Any]) -> list[Message] | None:
    """What the row says was asked, or None where chosen and rejected hold it."""
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    messages = messages_of(prompt) or turns_of(row)
    if messages is not None:
        return messages
    request = request_of(row)
    return None if request is None else [{"role": "user", "content": request}]


def _turns(given: Any, prompt: list[Message] | None) -> list[Message] | None:
    """`chosen` or `rejected` as messages, the answer the last."""
    if isinstance(given, str):
        if prompt is not None:
            return [{"role": "assistant", "content": given}]
        _, *parts = _SPEAKER.split(given)
        roles = {"Human": "user", "Assistant": "assistant"}
        return [
            {"role": roles[speaker], "content": text.strip()}
            for speaker, text in zip(parts[::2], parts[1::2], strict=True)
        ]
    if isinstance(given, dict):
        return [message_of(given)]
    return messages_of(given)
