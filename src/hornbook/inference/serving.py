"""What the server does with a call: check it, hand it to the model's worker, and write the answer in OpenAI's form."""

import asyncio
import json
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from hornbook.errors import UserError
from hornbook.inference import batch as batching
from hornbook.inference.answers import Choice, Delta, TooSlow, chat_logprobs, deltas, text_logprobs, usage
from hornbook.inference.cache import check_room
from hornbook.inference.counters import Counters
from hornbook.inference.engine import Engine
from hornbook.inference.protocol import ChatRequest, CompletionRequest, GenerationRequest
from hornbook.inference.text import TextStream
from hornbook.inference.worker import QueueFull, Worker
from hornbook.tokenizer.chat import END_OF_TURN, Message, render, without_oldest

LEFT_OUT_HEADER = "X-Messages-Left-Out"
FAILED = "The server failed to answer. Its log says why."
LOG = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Limits:
    """What one client may ask for, and all together.

    body_bytes: of a request. new_tokens: of one answer; default_tokens where the client names none. rows:
    answers written at a time. waiting: answers that may wait for a row. seconds: until an answer must be done.
    context_tokens: of a prompt and its answer together; None: as many as the model can read.
    """

    body_bytes: int = 1_000_000
    new_tokens: int = 2048
    default_tokens: int = 256
    rows: int = 16
    waiting: int = 64
    seconds: float = 120.0
    context_tokens: int | None = None

    def __post_init__(self) -> None:
        """Raises UserError for what cannot be served with; the names are those of `hornbook serve`."""
        least = {"max_body_bytes": self.body_bytes, "max_tokens": self.new_tokens, "rows": self.rows}
        for name, value in least.items():
            if value < 1:
                raise UserError(f"--{name}: must be 1 or more, but is {value}")
        if self.context_tokens is not None and self.context_tokens < 2:
            raise UserError(f"--context: must be 2 or more, for a prompt and an answer, but is {self.context_tokens}")
        if self.waiting < 0:
            raise UserError(f"--queue: must be 0 or more, but is {self.waiting}")
        if not 0 < self.seconds < math.inf:
            raise UserError(f"--seconds: must be above 0, and a number, but is {self.seconds}")


class Refused(Exception):
    """A call that is answered with an error status and a reason."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


_Format = Callable[[Delta, bool], dict[str, Any]]
"""A choice of an answer from a delta, and whether that is its first."""


class Serving:
    """The model, its worker and what is counted.

    Raises `UserError` where the model cannot read the context of the limits, or the memory cannot hold it.
    """

    def __init__(self, engine: Engine, name: str, limits: Limits) -> None:
        self._tokenizer, self._name, self._limits = engine.tokenizer, name, limits
        self._end_ids = engine.end_ids
        config = engine.model.config
        self._context_tokens = limits.context_tokens or config.max_seq_len
        if self._context_tokens > config.max_seq_len:
            most = f"at most {config.max_seq_len}, which is all that the model can read"
            raise UserError(f"--context: must be {most}, but is {self._context_tokens}")
        check_room(config, limits.rows, self._context_tokens, engine.dtype, engine.device)
        self._started = int(time.time())
        self.counters = Counters()
        batch = batching.ContinuousBatch(engine.model, limits.rows, self._context_tokens, engine.has_drafts)
        self.worker = Worker(batch, limits.waiting)

    def model_card(self) -> dict[str, Any]:
        """What /v1/models says of the model."""
        card = {"id": self._name, "object": "model", "created": self._started, "owned_by": "hornbook"}
        return card | {"context_tokens": self._context_tokens, "max_tokens": self._limits.new_tokens}

    def check_model(self, name: str | None) -> None:
        """Raise Refused where another model is meant."""
        if name is not None and name != self._name:
            raise Refused(404, f"The model {name!r} is not served here, but {self._name!r}.", "model_not_found")

    async def complete(self, body: CompletionRequest, http: Request) -> Response:
        """Continue texts. Raises Refused."""
        prompts = await asyncio.to_thread(self._encoded, body.prompts)
        choices = self._choices(body, prompts, body.max_tokens, body.logprobs, ())

        def part(delta: Delta, _: bool) -> dict[str, Any]:
            probabilities = body.logprobs is not None and text_logprobs(delta.tokens, self._tokenizer)
            fields = {"index": delta.index, "text": delta.text, "finish_reason": delta.finish}
            return fields | {"logprobs": probabilities or None}

        return await self._answer(body, http, choices, "text_completion", part, part)

    async def chat(self, body: ChatRequest, http: Request) -> Response:
        """Answer a conversation. Raises Refused."""
        try:
            prompt, n_left_out = await asyncio.to_thread(self._rendered, body)
            stop_ids = (self._tokenizer.special_id(END_OF_TURN),)
        except UserError as problem:
            raise Refused(400, str(problem)) from problem
        choices = self._choices(body, [prompt], body.answer_tokens, body.n_alternatives, stop_ids)

        def part(key: str) -> _Format:
            def fields(delta: Delta, is_first: bool) -> dict[str, Any]:
                role = {"role": "assistant"} if is_first else {}
                probabilities = chat_logprobs(delta.tokens, self._tokenizer) if body.logprobs else None
                content = {key: role | {"content": delta.text}, "logprobs": probabilities}
                return {"index": delta.index, **content, "finish_reason": delta.finish}

            return fields

        answered = await self._answer(body, http, choices, "chat.completion", part("message"), part("delta"))
        if body.truncation == "auto":
            answered.headers[LEFT_OUT_HEADER] = str(n_left_out)
        return answered

    # These two take a while for much text, so they are called in a thread: other clients' tokens go on meanwhile.

    def _encoded(self, prompts: list[str | list[int]]) -> list[list[int]]:
        return [self._tokenizer.encode(one) if isinstance(one, str) else one for one in prompts]

    def _rendered(self, body: ChatRequest) -> tuple[list[int], int]:
        """The ids of a conversation, and how many of its messages were left out. Raises UserError."""
        messages: list[Message] = [one.as_message for one in body.messages]
        kept = messages
        if body.truncation == "auto":
            answer_tokens = min(body.answer_tokens or self._limits.default_tokens, self._context_tokens // 2)
            kept = without_oldest(messages, self._tokenizer, self._context_tokens - answer_tokens)
        prompt, _ = render(kept, self._tokenizer, add_generation_prompt=True)
        return prompt, len(messages) - len(kept)

    def _choices(
        self,
        body: GenerationRequest,
        prompts: list[list[int]],
        max_tokens: int | None,
        n_alternatives: int | None,
        stop_ids: tuple[int, ...],
    ) -> list[Choice]:
        self.check_model(body.model)
        if max_tokens is not None and max_tokens > self._limits.new_tokens:
            raise Refused(400, f"max_tokens: at most {self._limits.new_tokens} here, but {max_tokens} were asked for.")
        for prompt in prompts:
            if not prompt:
                raise Refused(400, "prompt: is empty; the model needs at least one token to continue.")
            if max(prompt) >= self._tokenizer.vocab_size:
                raise Refused(400, f"prompt: {max(prompt)} is no token of this model.")
            if len(prompt) >= self._context_tokens:
                message = f"The prompt has {len(prompt)} tokens, but the context holds {self._context_tokens} in all."
                raise Refused(400, message, "context_length_exceeded")
        if len(prompts) * body.n > self._limits.rows + self._limits.waiting:
            most = self._limits.rows + self._limits.waiting
            raise Refused(400, f"{len(prompts) * body.n} texts were asked for at once, but at most {most} can be here.")
        n_new = max_tokens or min(self._limits.default_tokens, self._limits.new_tokens)
        seed = secrets.randbits(62) if body.seed is None else body.seed
        stops = {*self._end_ids, *stop_ids}
        choices: list[Choice] = []
        for prompt in prompts:
            room = min(n_new, self._context_tokens - len(prompt))
            for _ in range(body.n):
                index = len(choices)
                made = batching.Request(prompt, room, body.sampling, stops, (seed, index), n_alternatives)
                choices.append(Choice(index, made, TextStream(self._tokenizer, body.stop_strings)))
        return choices

    async def _answer(
        self, body: GenerationRequest, http: Request, choices: list[Choice], kind: str, whole: _Format, part: _Format
    ) -> Response:
        started = time.monotonic()
        head = {
            "id": f"{'chatcmpl' if kind.startswith('chat') else 'cmpl'}-{secrets.token_hex(12)}",
            "object": f"{kind}.chunk" if body.stream and kind.startswith("chat") else kind,
            "created": int(time.time()),
            "model": self._name,
        }
        coming = deltas(self.worker, choices, self._limits.seconds)
        try:
            first = await _unless_gone(anext(coming), http)
            self.counters.first_token.observe(time.monotonic() - started)
            if body.stream:
                events = self._events(head, first, coming, choices, part, body.wants_usage, started)
                return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
            answered = await _unless_gone(_whole(first, coming, len(choices)), http)
        except QueueFull as problem:
            raise Refused(429, "Too many requests are waiting. Try again in a moment.", "queue_full") from problem
        except TooSlow as problem:
            raise Refused(504, f"The answer took longer than {self._limits.seconds:g} s.", "timeout") from problem
        except _ClientGone:
            await coming.aclose()  # type: ignore[attr-defined]
            return Response(status_code=499)
        self._count(choices, started)
        made = [whole(delta, True) for delta in answered]
        return JSONResponse(head | {"choices": made, "usage": usage(choices)})

    async def _events(
        self,
        head: dict[str, Any],
        first: Delta,
        coming: AsyncIterator[Delta],
        choices: list[Choice],
        part: _Format,
        wants_usage: bool,
        started: float,
    ) -> AsyncIterator[str]:
        begun: set[int] = set()
        try:
            async for delta in _chain(first, coming):
                if delta.text or delta.tokens or delta.finish:
                    yield _event(head | {"choices": [part(delta, delta.index not in begun)]})
                    begun.add(delta.index)
        except TooSlow:
            yield _error_event(f"The answer took longer than {self._limits.seconds:g} s.", "timeout")
        except Exception:  # such as a device out of memory; the status was sent when the answer began
            LOG.exception("The model failed in the middle of an answer.")
            yield _error_event(FAILED, None)
        else:
            if wants_usage:
                yield _event(head | {"choices": [], "usage": usage(choices)})
        finally:
            await coming.aclose()  # type: ignore[attr-defined]
            self._count(choices, started)
        yield "data: [DONE]\n\n"

    def _count(self, choices: list[Choice], started: float) -> None:
        counts = usage(choices)
        self.counters.prompt_tokens += counts["prompt_tokens"]
        self.counters.new_tokens += counts["completion_tokens"]
        self.counters.whole_answer.observe(time.monotonic() - started)


class _ClientGone(Exception):
    pass


async def _unless_gone(work: Awaitable[Any], http: Request) -> Any:
    """The result of the work, which is cancelled and ends in _ClientGone as soon as the client has left."""

    async def until_gone() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(until_gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise _ClientGone
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _chain(first: Delta, coming: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
    yield first
    async for delta in coming:
        yield delta


async def _whole(first: Delta, coming: AsyncIterator[Delta], n_choices: int) -> list[Delta]:
    joined = [Delta(index, "", [], None) for index in range(n_choices)]
    async for delta in _chain(first, coming):
        one = joined[delta.index]
        one.text += delta.text
        one.tokens += delta.tokens
        one.finish = delta.finish
    return joined


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _error_event(message: str, code: str | None) -> str:
    return _event({"error": {"message": message, "type": "server_error", "code": code, "param": None}})
