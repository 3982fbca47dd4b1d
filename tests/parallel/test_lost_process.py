"""A process is killed in the middle of a step: the others end soon, say which it was, and the next start goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hornbook.training.metrics import read_metrics

_WORKER = Path(__file__).with_name("layout_worker.py")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_the_others_end_within_a_minute_and_name_it_and_the_next_start_goes_on(
    killed: int, tmp_path: Path, start_processes: Callable[..., list[subprocess.Popen[str]]]
) -> None:
    run = {"name": "run", "layout": {"shard": 2}, "dtype": "float64", "steps": 100_000}
    job, metrics = tmp_path / "job.json", tmp_path / "run" / "metrics.jsonl"
    job.write_text(json.dumps([run]))
    processes = start_processes(2, [str(_WORKER), str(job)])
    while len(read_metrics(metrics)) < 12:
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
        time.sleep(0.1)

    processes[killed].kill()
    started = time.monotonic()
    survivor = processes[1 - killed]
    output = survivor.communicate(timeout=60)[0]

    assert time.monotonic() - started < 60
    assert survivor.returncode != 0
    assert f"ank {killed}" in output

    made = len(read_metrics(metrics)) // 10 * 10
    job.write_text(json.dumps([run | {"steps": made + 5}]))
    for process in start_processes(2, [str(_WORKER), str(job)]):
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
    assert [record["step"] for record in read_metrics(metrics)] == list(range(1, made + 6))


@pytest.mark.slow
def test_torchrun_starts_all_again_and_the_training_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    run = {"name": "run", "layout": {"shard": 2}, "dtype": "float64", "steps": 200}
    job, metrics = tmp_path / "job.json", tmp_path / "run" / "metrics.jsonl"
    job.write_text(json.dumps([run]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun += ["--master-port", str(port), str(_WORKER), str(job)]
    process = subprocess.Popen(torchrun, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while len(read_metrics(metrics)) < 12:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)

    # Workers are torchrun's children; the last one is rank 1.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    output = process.communicate(timeout=300)[0]

    assert process.returncode == 0, output
    assert "was killed" in output
    assert [record["step"] for record in read_metrics(metrics)] == list(range(1, 201))
