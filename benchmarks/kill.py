"""kill -9 at random moments of one run, then the same command again: are the final weights the same, bit for bit?

    python benchmarks/kill.py [--times 20] [--seed N]

Two runs of tests/training/killed_run.py: one is left alone; the other is killed `times` times, each time somewhere
between its start and its end, checkpoints being written included, and started again. Prints at which steps it was
killed, and how the hashes of the weights compare. Exit status 1 where they differ.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hornbook.training.metrics import read_metrics

_SCRIPT = Path(__file__).parent.parent / "tests" / "training" / "killed_run.py"
_TOTAL_STEPS = 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = Path(folder, "undisturbed"), Path(folder, "killed")
        expected = finish(undisturbed)
        seen = []
        # Each kill comes some steps after the last, so that the run gets on; 7 steps are one interval of checkpoints.
        targets = sorted(moments.randrange(2, _TOTAL_STEPS - 20) for _ in range(arguments.times))
        for target in targets:
            seen.append(kill_after(killed, target, moments.random() * 0.06))
            print(f"kill {len(seen)}: {seen[-1]} steps were logged", flush=True)
        found = finish(killed)
    print(f"seed {arguments.seed}: killed {len(seen)} times, after steps {', '.join(map(str, seen))} of {_TOTAL_STEPS}")
    print(f"weights of the undisturbed run {expected}")
    print(f"weights of the killed run      {found}")
    print("the same, bit for bit" if found == expected else "DIFFERENT")
    return 0 if found == expected else 1


def kill_after(folder: Path, step: int, seconds: float) -> int:
    """Start the run, kill it some time after it has logged `step`, and return the steps it had logged then."""
    process = subprocess.Popen([sys.executable, str(_SCRIPT), str(folder)], stdout=subprocess.DEVNULL)
    before = steps_logged(folder)
    # A run that starts again may have fewer steps than it had logged: wait until it has begun to write.
    while process.poll() is None and (steps_logged(folder) < step or steps_logged(folder) == before):
        time.sleep(0.002)
    time.sleep(seconds)
    if process.poll() is not None:
        raise SystemExit("the run ended before it could be killed")
    process.kill()
    process.wait()
    return steps_logged(folder)


def finish(folder: Path) -> str:
    """Run to the end, and return the hash of the weights."""
    done = subprocess.run([sys.executable, str(_SCRIPT), str(folder)], capture_output=True, text=True, check=True)
    return next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("weights:"))


def steps_logged(folder: Path) -> int:
    return len(read_metrics(folder / "pretrain" / "metrics.jsonl"))


if __name__ == "__main__":
    sys.exit(main())
