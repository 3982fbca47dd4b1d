"""Starting the server: the address that it listens on, and what is refused before a model is loaded."""

import socket
from pathlib import Path

import pytest

from hornbook.errors import UserError

uvicorn = pytest.importorskip("uvicorn")
serve_module = pytest.importorskip("hornbook.inference.serve")

Limits = pytest.importorskip("hornbook.inference.serving").Limits


@pytest.mark.parametrize("port", [0, 99999])
def test_a_port_that_is_none_is_refused(port: int, run: Path):
    with pytest.raises(UserError, match="--port: must be between 1 and 65535"):
        serve_module.serve(run, "127.0.0.1", port, Limits())


def test_an_address_that_is_in_use_is_refused(run: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: cannot be listened on .*in use"):
            serve_module.serve(run, "127.0.0.1", port, Limits())


def test_two_servers_do_not_load_models_for_one_port(run: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(serve_module, "load_engine", lambda *_: serve_module.serve(run, "127.0.0.1", port, Limits()))
    with pytest.raises(UserError, match=f"--port {port}: cannot be listened on .*in use"):
        serve_module.serve(run, "127.0.0.1", port, Limits())


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "http://127.0.0.1"), ("::1", "http://[::1]")])
def test_the_address_that_is_printed_can_be_opened(
    run: Path, host: str, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(serve_module, "_listen", lambda *_: socket.socket())
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    serve_module.serve(run, host, 8721, Limits())
    assert f" {address}:8721/ " in capsys.readouterr().out
