"""One call of a client under way: its choices, their texts as they come, and the shapes of OpenAI's answers."""

import asyncio
import codecs
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from hornbook.inference.batch import Produced, Request
from hornbook.inference.text import TextStream
from hornbook.inference.worker import Worker
from hornbook.tokenizer.tokenizer import Tokenizer


class TooSlow(Exception):
    """An answer took longer than the server allows."""


@dataclass(frozen=True)
class Written:
    """A new token of a choice, and the character of the text in which it begins."""

    token: int
    log_probability: float | None
    alternatives: list[tuple[int, float]]
    place: int


@dataclass
class Delta:
    """What became certain of a choice: text, the tokens it came from, and perhaps its end."""

    index: int
    text: str
    tokens: list[Written]
    finish: str | None


@dataclass
class Choice:
    """One continuation of one prompt."""

    index: int
    request: Request
    stream: TextStream
    n_tokens: int = 0
    """New tokens up to its end; behind a stop string the model may have gone on a little."""
    _held: list[Written] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = _Places(self.stream.tokenizer)

    def absorb(self, produced: Produced) -> Delta:
        """What is certain after one more token. A stop string ends the choice and its request."""
        text = ""
        if produced.token is not None:
            place = self._places.add(produced.token)
            self._held.append(Written(produced.token, produced.log_probability, produced.alternatives, place))
            self.n_tokens += 1
            text = self.stream.add(produced.token)
        finish: str | None = produced.finish
        if finish is not None:
            text += self.stream.finish()
        if self.stream.has_stopped:
            finish = "stop"
            self.request.is_cancelled = True
        tokens: list[Written] = []
        if text or finish is not None:
            tokens, self._held = self._held, []
        return Delta(self.index, text, tokens, finish)


class _Places:
    """Where the tokens of a text begin, in characters: one character can be spread over several tokens.

    Text that is still held back, or that a stop string cut off, counts as well: the places after it depend on it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._n_characters = 0

    def add(self, token: int) -> int:
        """The place of the next token."""
        content = self._tokenizer.token_bytes(token)
        # Its first byte shows whether the token goes on with a character that others began.
        self._n_characters += len(self._decoder.decode(content[:1]))
        is_under_way = bool(self._decoder.getstate()[0])
        place = self._n_characters if is_under_way or not content else self._n_characters - 1
        self._n_characters += len(self._decoder.decode(content[1:]))
        return place


async def deltas(worker: Worker, choices: list[Choice], seconds: float) -> AsyncIterator[Delta]:
    """What comes of all choices, until each has ended. Raises QueueFull, TooSlow, and what the model raises.

    However it ends, also by the client's leaving, nothing goes on being computed for it.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[Choice, Produced | Exception]] = asyncio.Queue()

    def deliver_to(choice: Choice) -> Any:
        return lambda item: loop.call_soon_threadsafe(arrived.put_nowait, (choice, item))

    ends_at = loop.time() + seconds
    worker.submit({choice.request: deliver_to(choice) for choice in choices})
    open_choices = {choice.index for choice in choices}
    try:
        while open_choices:
            try:
                # Before Python 3.12 asyncio.wait_for lost a cancellation that came together with a token.
                async with asyncio.timeout_at(ends_at):
                    choice, item = await arrived.get()
            except TimeoutError as problem:
                raise TooSlow from problem
            if isinstance(item, Exception):
                raise item
            if choice.index not in open_choices:
                continue
            delta = choice.absorb(item)
            if delta.finish is not None:
                open_choices.remove(choice.index)
            yield delta
    finally:
        for choice in choices:
            choice.request.is_cancelled = True


def usage(choices: list[Choice]) -> dict[str, int]:
    """How many tokens went in and came out; a prompt with several choices counts once."""
    prompts = {id(choice.request.prompt): len(choice.request.prompt) for choice in choices}
    n_prompt, n_new = sum(prompts.values()), sum(choice.n_tokens for choice in choices)
    return {"prompt_tokens": n_prompt, "completion_tokens": n_new, "total_tokens": n_prompt + n_new}


def chat_logprobs(tokens: list[Written], tokenizer: Tokenizer) -> dict[str, Any]:
    """The probabilities of tokens as chat completions have them."""
    return {
        "content": [
            _entry(one.token, one.log_probability, tokenizer)
            | {"top_logprobs": [_entry(token, value, tokenizer) for token, value in one.alternatives]}
            for one in tokens
        ],
        "refusal": None,
    }


def text_logprobs(tokens: list[Written], tokenizer: Tokenizer) -> dict[str, Any]:
    """The same as completions have them."""
    return {
        "tokens": [_name(one.token, tokenizer) for one in tokens],
        "token_logprobs": [one.log_probability for one in tokens],
        "top_logprobs": [
            {_name(token, tokenizer): value for token, value in one.alternatives} or None for one in tokens
        ],
        "text_offset": [one.place for one in tokens],
    }


def _entry(token: int, log_probability: float | None, tokenizer: Tokenizer) -> dict[str, Any]:
    value = max(log_probability or 0.0, -9999.0)  # JSON has no infinity
    return {"token": _name(token, tokenizer), "logprob": value, "bytes": list(tokenizer.token_bytes(token))}


def _name(token: int, tokenizer: Tokenizer) -> str:
    """The token's text. Bytes that are no whole characters are spelled out, or many tokens would have one name."""
    spelled = next((name for name, id in tokenizer.special_ids.items() if id == token), None)
    if spelled is not None:
        return spelled
    content = tokenizer.token_bytes(token)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + content.decode(errors="backslashreplace")
