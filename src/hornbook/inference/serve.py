"""`hornbook serve`: a model behind an address, until it is told to stop."""

import socket
from pathlib import Path

import uvicorn

from hornbook.errors import UserError
from hornbook.inference.examples import example_questions
from hornbook.inference.load import TUNED_STAGES, EngineOptions, find_model, load_engine
from hornbook.inference.server import make_app
from hornbook.inference.serving import Limits


def serve(
    run: Path,
    host: str,
    port: int,
    limits: Limits,
    api_key: str | None = None,
    options: EngineOptions | None = None,
    stage: str | None = None,
) -> None:
    """Serve the model that the run tuned last, else its pretrained one, or that of a folder in Hugging Face's layout.

    Ctrl-C and SIGTERM let what is under way end, for at most the seconds of an answer; nothing new is taken in.
    Raises `UserError` where there is no model, and where an address that others reach has no key.
    """
    if host not in ("127.0.0.1", "localhost", "::1") and not api_key:
        raise UserError(
            f"--host {host}: others could reach the server there, so it needs a key. Set the environment variable "
            "HORNBOOK_API_KEY, or leave --host out to serve this machine alone."
        )
    if not 0 < port < 2**16:
        raise UserError(f"--port: must be between 1 and {2**16 - 1}, but is {port}")
    with _listen(host, port) as listening:
        engine = load_engine(find_model(run, (stage,) if stage else (*TUNED_STAGES, "pretrain")), options)
        name = run.resolve().name
        app = make_app(engine, name, limits, api_key, example_questions(run))
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        print(f"Serving {name} on {address}/ (chat page) and {address}/v1 (OpenAI's interface).")
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=int(limits.seconds) + 1)
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """The socket of the address. Raises `UserError` where it is not to be had, before a model is loaded for it."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # Another server could still bind the address until somebody listens there.
        listening.listen()
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise UserError(f"--host {host} --port {port}: cannot be listened on ({reason}). Name another.") from None
    return listening
