"""The server: OpenAI's completions and chat completions over one model, a chat page, health and metrics.

Errors have OpenAI's shape and these statuses: 400 the request is wrong, 401 the key is, 404 there is no such
model or page, 413 the body is too large, 429 too many wait already, 499 the client left, 500 the model or the server
failed, 504 it took too long.
"""

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from hornbook.inference.body_limit import BodyLimit
from hornbook.inference.engine import Engine
from hornbook.inference.protocol import ChatRequest, CompletionRequest, Refusal, reasons
from hornbook.inference.serving import FAILED, LOG, Limits, Refused, Serving

_PAGE = Path(__file__).parent / "page"
_PAGE_POLICY = "default-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "The request was refused; the message says why."},
    "5XX": {"model": Refusal, "description": "No answer came, in time or at all."},
}
"""For the description of the interface; without it FastAPI would promise a status 422 that is never given."""
_STREAMS = _REFUSALS | {200: {"content": {"text/event-stream": {}}, "description": "At once, or event by event."}}
_PATHS = {"/", "/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions"}


def make_app(
    engine: Engine,
    name: str,
    limits: Limits | None = None,
    api_key: str | None = None,
    examples: Sequence[str] = (),
) -> FastAPI:
    """The application that serves a model under a name. examples: what the page proposes to ask."""
    limits = limits or Limits()
    serving = Serving(engine, name, limits)

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
        # Only paths that exist are told apart, or a client could fill the memory with names.
        known = path if path in _PATHS else "other"
        response: Response
        if api_key is not None and path.startswith("/v1/") and not _has_key(request, api_key):
            response = _error(401, "The API key is missing or wrong.", "invalid_api_key")
        else:
            try:
                response = await call_next(request)
            except Exception:
                LOG.exception("A request to %s failed.", known)
                response = _error(500, FAILED)
        serving.counters.requests[known, response.status_code] += 1
        response.headers["Content-Security-Policy"] = _PAGE_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.exception_handler(Refused)
    async def refused(_: Request, problem: Refused) -> JSONResponse:
        return _error(problem.status, problem.message, problem.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        return _error(400, "; ".join(reasons(problem.errors())[:5]))

    @app.exception_handler(HTTPException)
    async def plain(_: Request, problem: HTTPException) -> JSONResponse:
        return _error(problem.status_code, str(problem.detail), headers=problem.headers)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server is there."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
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

    @app.get("/v1/models", responses=_REFUSALS)
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [serving.model_card()]}

    @app.get("/v1/models/{model}", responses=_REFUSALS)
    async def model(model: str) -> dict[str, Any]:
        """The same, asked for by its name."""
        serving.check_model(model)
        return serving.model_card()

    @app.post("/v1/completions", responses=_STREAMS)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue texts."""
        return await serving.complete(body, request)

    @app.post("/v1/chat/completions", responses=_STREAMS)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation."""
        return await serving.chat(body, request)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html")

    @app.get("/page/examples.json", include_in_schema=False)
    async def proposed() -> list[str]:
        return list(examples)

    app.mount("/page", StaticFiles(directory=_PAGE))
    return app


def _has_key(request: Request, api_key: str) -> bool:
    """Whether a request carries the key, whose characters clients write as UTF-8 or as latin-1."""
    given = re.sub("^bearer +", "", request.headers.get("authorization", ""), flags=re.IGNORECASE)
    key = api_key.encode("utf-8", "surrogateescape")
    # Headers were read as latin-1: written so again they are the client's bytes.
    return any(hmac.compare_digest(given.encode(sent_as), key) for sent_as in ("latin-1", "utf-8"))


def _error(
    status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    # A client's half of a surrogate pair would not be written as UTF-8.
    clean = message.encode("utf-8", "replace").decode()
    kind = "invalid_request_error" if status < 500 else "server_error"
    if status == 429:
        headers = {"Retry-After": "1"}
    content = {"error": {"message": clean, "type": kind, "param": None, "code": code}}
    return JSONResponse(content, status_code=status, headers=headers)
