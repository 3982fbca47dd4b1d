"""kill -9 at any moment, and the same command again: the same weights, bit for bit."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hornbook.training.metrics import read_metrics

_SCRIPT = Path(__file__).with_name("killed_run.py")


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(_SCRIPT), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _finish(folder: Path) -> str:
    process = _start(folder)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return next(line for line in output.splitlines() if line.startswith("weights:"))


def _steps_logged(folder: Path) -> int:
    return len(read_metrics(folder / "pretrain" / "metrics.jsonl"))


@pytest.mark.parametrize(
    "ranges",
    [
        ((2, 30), (35, 60), (70, 100)),
        pytest.param(((2, 15), (20, 35), (40, 55), (60, 75), (80, 100)), marks=pytest.mark.slow),
    ],
    ids=["three", "five"],
)
def test_a_run_killed_several_times_ends_with_the_weights_of_one_that_was_not(
    ranges: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    moments = random.Random()
    undisturbed = _finish(tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    seen = []
    for target_step in (moments.randrange(*steps) for steps in ranges):
        process = _start(folder)
        while _steps_logged(folder) < target_step:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
        time.sleep(moments.random() * 0.03)  # anywhere in a step or in the writing of a checkpoint
        assert process.poll() is None, "the run ended before it could be killed"
        process.kill()
        process.wait()
        seen.append(_steps_logged(folder))

    resumed = _finish(folder)

    assert resumed == undisturbed, f"killed after about {seen} steps"
    one, other = (
        [
            {key: value for key, value in record.items() if key not in ("seconds", "tokens_per_second")}
            for record in read_metrics(path / "pretrain" / "metrics.jsonl")
        ]
        for path in (tmp_path / "undisturbed", folder)
    )
    assert one == other
    assert len(one) == 120
