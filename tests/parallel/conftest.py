"""Starting the processes of a test, as torchrun would."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunAll = Callable[..., None]
Start = Callable[..., list[subprocess.Popen[str]]]
WORKER = Path(__file__).with_name("layout_worker.py")


def _start_processes(world_size: int, arguments: list[str], **environment: str) -> list[subprocess.Popen[str]]:
    """That many processes of `python ARGUMENTS` that find each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = os.environ | environment | {"OMP_NUM_THREADS": "1"}
    if world_size == 1:
        return [_start(arguments, common)]
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    return [_start(arguments, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(world_size)]


def _start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(processes: list[subprocess.Popen[str]], timeout_seconds: float) -> list[str]:
    """What each of them printed, when all have ended well."""
    outputs = [process.communicate(timeout=timeout_seconds)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)
    return outputs


def _run_all(folder: Path, world_size: int, runs: list[dict[str, Any]], timeout_seconds: float = 1800) -> None:
    """Make all runs with one set of processes; what comes of them lies in `folder`."""
    job = folder / f"job-{world_size}.json"
    job.write_text(json.dumps(runs))
    _finish(_start_processes(world_size, [str(WORKER), str(job)]), timeout_seconds)


@pytest.fixture(scope="session")
def run_all() -> RunAll:
    return _run_all


@pytest.fixture(scope="session")
def start_processes() -> Start:
    return _start_processes
