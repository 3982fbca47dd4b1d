"""The server: OpenAI's completions and chat completions over one model, a chat page, health and metrics.

Errors have OpenAI's shape and these statuses: 400 the request is wrong, 401 the key is, 404 there is no such
model or page, 413 the body is too large, 429 too many wait already, 499 the client left, 504 it took too long.
"""

import asyncio
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from hornbook.errors import UserError
from hornbook.inference import batch as batching
from hornbook.inference.answers import Choice, Delta, TooSlow, chat_logprobs, deltas, text_logprobs, usage
from hornbook.inference.body_limit import BodyLimit
from hornbook.inference.counters import Counters
from hornbook.inference.engine import Engine
from hornbook.inference.protocol import ChatRequest, CompletionRequest, GenerationRequest
from hornbook.inference.text import TextStream
from hornbook.inference.worker import QueueFull, Worker
from hornbook.tokenizer.chat import END_OF_TURN, render

_PAGE = Path(__file__).parent / "page"
_PAGE_POLICY = "default-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:; frame-ancestors 'none'"


@dataclass(frozen=True)
class Limits:
    """What one client may ask for, and all together.

    body_bytes: of a request. new_tokens: of one answer; default_tokens where the client names none. rows:
    answers written at a time. waiting: answers that may wait for a row. seconds: until an answer must be done.
    """

    body_bytes: int = 1_000_000
    new_tokens: int = 2048
    default_tokens: int = 256
    rows: int = 16
    waiting: int = 64
    seconds: float = 120.0


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def make_app(engine: Engine, name: str, limits: Limits | None = None, api_key: str | None = None) -> FastAPI:
    """The application that serves a model under a name."""
    limits = limits or Limits()
    serving = _Serving(engine, name, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        serving.worker.start()
        yield
        await asyncio.to_thread(serving.worker.stop)

    app = FastAPI(title="Hornbook", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, max_bytes=limits.body_bytes)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        path = request.url.path
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode("utf-8", "surrogateescape")
        if api_key is not None and path.startswith("/v1/") and not hmac.compare_digest(given, api_key.encode()):
            response: Response = _error(401, "The API key is missing or wrong.", "invalid_api_key")
        else:
            response = await call_next(request)
        # Only paths that exist are told apart, or a client could fill the memory with names.
        known = path if path in _PATHS else "other"
        serving.counters.requests[known, response.status_code] += 1
        response.headers["Content-Security-Policy"] = _PAGE_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.exception_handler(_Refused)
    async def refused(_: Request, problem: _Refused) -> JSONResponse:
        return _error(problem.status, problem.message, problem.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        lines = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in problem.errors()[:5]]
        return _error(400, "; ".join(lines))

    @app.exception_handler(HTTPException)
    async def plain(_: Request, problem: HTTPException) -> JSONResponse:
        return _error(problem.status_code, str(problem.detail))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server is there."""
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        """Counters for Prometheus."""
        worker = serving.worker
        page = serving.counters.render(
            n_active=worker.n_active,
            n_waiting=worker.n_waiting,
            tokens_read=worker.tokens_read,
            tokens_shared=worker.tokens_shared,
        )
        return PlainTextResponse(page, media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [serving.model_card()]}

    @app.get("/v1/models/{model}")
    async def model(model: str) -> dict[str, Any]:
        """The same, asked for by its name."""
        serving.check_model(model)
        return serving.model_card()

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue texts."""
        return await serving.complete(body, request)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation."""
        return await serving.chat(body, request)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=_PAGE))
    return app


_PATHS = {"/", "/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions"}

_Format = Callable[[Delta, int], dict[str, Any]]
"""A choice of an answer from a delta and the number of characters before it."""


class _Serving:
    """The model, its worker and what is counted."""

    def __init__(self, engine: Engine, name: str, limits: Limits) -> None:
        self._tokenizer, self._name, self._limits = engine.tokenizer, name, limits
        self._context_tokens = engine.model.config.max_seq_len
        self._started = int(time.time())
        self.counters = Counters()
        self.worker = Worker(batching.ContinuousBatch(engine.model, limits.rows, self._context_tokens), limits.waiting)

    def model_card(self) -> dict[str, Any]:
        card = {"id": self._name, "object": "model", "created": self._started, "owned_by": "hornbook"}
        return card | {"context_tokens": self._context_tokens, "max_tokens": self._limits.new_tokens}

    def check_model(self, name: str | None) -> None:
        if name is not None and name != self._name:
            raise _Refused(404, f"The model {name!r} is not served here, but {self._name!r}.", "model_not_found")

    async def complete(self, body: CompletionRequest, http: Request) -> Response:
        prompts = [self._tokenizer.encode(one) if isinstance(one, str) else one for one in body.prompts]
        choices = self._choices(body, prompts, body.max_tokens, body.logprobs, ())

        def part(delta: Delta, offset: int) -> dict[str, Any]:
            probabilities = body.logprobs is not None and text_logprobs(delta.tokens, self._tokenizer, offset)
            fields = {"index": delta.index, "text": delta.text, "finish_reason": delta.finish}
            return fields | {"logprobs": probabilities or None}

        return await self._answer(body, http, choices, "text_completion", part, part)

    async def chat(self, body: ChatRequest, http: Request) -> Response:
        try:
            prompt, _ = render([one.as_message for one in body.messages], self._tokenizer, add_generation_prompt=True)
            stop_ids = (self._tokenizer.special_id(END_OF_TURN),)
        except UserError as problem:
            raise _Refused(400, str(problem)) from problem
        wanted = body.max_completion_tokens or body.max_tokens
        choices = self._choices(body, [prompt], wanted, body.n_alternatives, stop_ids)

        def part(key: str) -> _Format:
            def fields(delta: Delta, offset: int) -> dict[str, Any]:
                role = {"role": "assistant"} if key == "message" or offset == 0 else {}
                probabilities = chat_logprobs(delta.tokens, self._tokenizer) if body.logprobs else None
                content = {key: role | {"content": delta.text}, "logprobs": probabilities}
                return {"index": delta.index, **content, "finish_reason": delta.finish}

            return fields

        return await self._answer(body, http, choices, "chat.completion", part("message"), part("delta"))

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
            raise _Refused(400, f"max_tokens: at most {self._limits.new_tokens} here, but {max_tokens} were asked for.")
        for prompt in prompts:
            if not prompt:
                raise _Refused(400, "prompt: is empty; the model needs at least one token to continue.")
            if max(prompt) >= self._tokenizer.vocab_size:
                raise _Refused(400, f"prompt: {max(prompt)} is no token of this model.")
            if len(prompt) >= self._context_tokens:
                message = f"The prompt has {len(prompt)} tokens, but the context holds {self._context_tokens} in all."
                raise _Refused(400, message, "context_length_exceeded")
        n_new = max_tokens or min(self._limits.default_tokens, self._limits.new_tokens)
        seed = secrets.randbits(62) if body.seed is None else body.seed
        stops = {self._tokenizer.end_of_text_id, *stop_ids}
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
            raise _Refused(429, "Too many requests are waiting. Try again in a moment.", "queue_full") from problem
        except TooSlow as problem:
            raise _Refused(504, f"The answer took longer than {self._limits.seconds:g} s.", "timeout") from problem
        except _ClientGone:
            await coming.aclose()  # type: ignore[attr-defined]
            return Response(status_code=499)
        self._count(choices, started)
        made = [whole(delta, 0) for delta in answered]
        return _json(head | {"choices": made, "usage": usage(choices)})

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
        offsets = [0] * len(choices)
        try:
            async for delta in _chain(first, coming):
                if delta.text or delta.tokens or delta.finish:
                    yield _event(head | {"choices": [part(delta, offsets[delta.index])]})
                    offsets[delta.index] += len(delta.text)
        except TooSlow:
            message = f"The answer took longer than {self._limits.seconds:g} s."
            yield _event({"error": {"message": message, "type": "server_error", "code": "timeout", "param": None}})
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


def _json(content: dict[str, Any], status: int = 200) -> JSONResponse:
    return JSONResponse(content, status_code=status)


def _error(status: int, message: str, code: str | None = None) -> JSONResponse:
    # A client's half of a surrogate pair would not be written as UTF-8.
    clean = message.encode("utf-8", "replace").decode()
    kind = "invalid_request_error" if status < 500 else "server_error"
    headers = {"Retry-After": "1"} if status == 429 else None
    content = {"error": {"message": clean, "type": kind, "param": None, "code": code}}
    return JSONResponse(content, status_code=status, headers=headers)
