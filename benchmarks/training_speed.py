"""How fast a whole training step is, beside other projects, and how much memory it takes.

    python benchmarks/training_speed.py --peers PEERS [--shape tiny] [--modes eager compiled] [--rounds 15]
    python benchmarks/training_speed.py --peers PEERS --shape 124M --memory

PEERS is a folder with checkouts of nanoGPT, nanochat and litgpt; those that are missing are left out, and said to be.
Each contender lives in a process of its own, with the memory allocator as it sets it; their steps are interleaved one
by one, so that whatever else the machine does falls on all alike. Figures are medians over the rounds, ratios medians
of the ratios within a round. With one thread (OMP_NUM_THREADS=1) a step's time is that of the processor; with more it
is the clock's, for an idle machine.

Modes: eager and compiled, in --dtype; as-it-comes is what a user on a CPU gets who sets nothing: ours in bfloat16
(where the processor multiplies it) and compiled, the peers in float32 and not compiled.

MFU is 6 × the weights that a token is multiplied with × tokens per second, over the rate of products of 2,048 × 2,048
in the same type, made for a while right before each step: the median of these shares. With --memory each contender
makes one step in a process of its own, whose peak resident memory is printed.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from training_parts.contenders import NAMES, SHAPES, NotHere, Shape, build, is_peer, peers_among

from hornbook.runtime import pick_dtype

_WARM_UP_STEPS = 2
_PEAK_MATRIX, _PEAK_PRODUCTS = 2048, 8
_MODES = ("eager", "compiled", "as-it-comes")
_PAUSE_SECONDS = 0.02  # until the threads of the contender before have gone to sleep
_IN_MEMORY = tuple(name for name in NAMES if name != "hornbook qwen3")
_IN_SPEED = (
    "hornbook",
    "hornbook AdamW",
    "nanoGPT",
    "nanochat",
    "LitGPT",
    "transformers Llama",
    "transformers GPT-2",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path("peers"))
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--modes", nargs="+", choices=_MODES, default=["eager", "compiled"])
    parser.add_argument("--only", nargs="+", choices=NAMES, help="these contenders instead of the usual ones")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", action="store_true", help="peak memory of one eager step instead of speed")
    parser.add_argument("--one-step-of", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--steps-of", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    if options.steps_of:
        make_steps(options.steps_of, SHAPES[options.shape], options.peers, dtype, options.modes[0])
    elif options.one_step_of:
        print(json.dumps(one_step(options.one_step_of, SHAPES[options.shape], options.peers, dtype)))
    elif options.memory:
        print_memory(options.only or _IN_MEMORY, options.shape, options.peers, options.dtype)
    else:
        print_speed(
            options.only or _IN_SPEED, options.shape, options.peers, options.dtype, options.modes, options.rounds
        )


class Stepper:
    """A contender in a process of its own, which makes a step when it is told to."""

    def __init__(self, name: str, mode: str, shape_name: str, peers: Path, dtype_name: str) -> None:
        command = [sys.executable, __file__, "--steps-of", name, "--modes", mode, "--shape", shape_name]
        self._process = subprocess.Popen(
            [*command, "--dtype", dtype_name, "--peers", str(peers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.beginning: dict[str, Any] = self._answer()

    def step(self) -> float:
        """Make one, and return its seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds: float = self._answer()
        return seconds

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"missing": f"ended with status {self._process.wait()}"}


def make_steps(name: str, shape: Shape, peers: Path, dtype: torch.dtype, mode: str) -> None:
    """The other end of a Stepper: what it is at first, and then the seconds of a step for each line that is read."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a peer prints does not belong among the answers
    torch._dynamo.config.recompile_limit = 64
    if mode == "as-it-comes":
        dtype = pick_dtype("auto", torch.device("cpu")) if not is_peer(name) else torch.float32
    is_compiled = mode == "compiled" or (mode == "as-it-comes" and not is_peer(name))
    try:
        contender = build(name, shape, peers, dtype, is_compiled)
    except NotHere as missing:
        answers.write(json.dumps({"missing": str(missing)}) + "\n")
        return
    ids = some_ids(shape)
    for _ in range(_WARM_UP_STEPS):
        contender.step(ids)
    answers.write(json.dumps({"matrix_weights": contender.matrix_weights}) + "\n")
    for _ in sys.stdin:
        started = now()
        contender.step(ids)
        answers.write(json.dumps(now() - started) + "\n")


def print_speed(names: list[str], shape_name: str, peers: Path, dtype_name: str, modes: list[str], rounds: int) -> None:
    """Build all contenders, one after the other, and print a line for each after the rounds."""
    tokens, steppers = SHAPES[shape_name].tokens, dict[tuple[str, str], Stepper]()
    for name in names:
        for mode in modes:
            stepper = Stepper(name, mode, shape_name, peers, dtype_name)
            if "missing" in stepper.beginning:
                print(f"left out: {name}: {stepper.beginning['missing']}")
                break
            steppers[name, mode] = stepper
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steppers}
    products: dict[tuple[str, str], list[float]] = {key: [] for key in steppers}
    for _ in range(rounds):
        for key, stepper in steppers.items():
            time.sleep(_PAUSE_SECONDS)
            products[key].append(matrix_flops_per_second(getattr(torch, dtype_name)))
            time.sleep(_PAUSE_SECONDS)
            seconds[key].append(stepper.step())

    threads, clock = torch.get_num_threads(), "processor" if now is time.process_time else "wall"
    peak = statistics.median(rate for rates in products.values() for rate in rates)
    print(f"{shape_name}, {dtype_name}, {threads} threads, {clock} seconds, {rounds} rounds", end="; ")
    print(f"matrix product {peak / 1e9:.0f} GFLOP/s")
    print(f"{'':<20}{'mode':<12}{'tokens/s':>9}{'MFU':>7}  median ratio to the peers: {', '.join(peers_among(names))}")
    for (name, mode), times in seconds.items():
        rate, flops = tokens / statistics.median(times), 6 * steppers[name, mode].beginning["matrix_weights"] * tokens
        mfu = statistics.median(flops / (a * b) for a, b in zip(times, products[name, mode], strict=True))
        ratios = [
            f"{median_ratio(seconds[peer, mode], times):.2f}" if (peer, mode) in seconds else "–"
            for peer in peers_among(names)
        ]
        print(f"{name:<20}{mode:<12}{rate:>9,.0f}{mfu:>7.1%}  {' '.join(ratios)}")


def print_memory(names: list[str], shape_name: str, peers: Path, dtype_name: str) -> None:
    """One step of each contender in a process of its own."""
    print(f"{shape_name}, {dtype_name}, one eager step: peak resident memory, GB")
    for name in names:
        command = [sys.executable, __file__, "--one-step-of", name, "--shape", shape_name, "--dtype", dtype_name]
        done = subprocess.run([*command, "--peers", str(peers)], capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}"
            print(f"{name:<34}{reason}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:<34}{found['peak_bytes'] / 1e9:>6.2f}   {found['seconds']:.2f} s", flush=True)


def one_step(name: str, shape: Shape, peers: Path, dtype: torch.dtype) -> dict[str, float]:
    """Make two steps, so that the second has the optimizer's state; the peak of this process and the second's time."""
    contender = build(name, shape, peers, dtype, compiled=False)
    ids = some_ids(shape)
    contender.step(ids)
    started = now()
    contender.step(ids)
    seconds = now() - started
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "seconds": seconds}


def some_ids(shape: Shape) -> torch.Tensor:
    return torch.randint(
        shape.vocab_size, (shape.rows, shape.row_tokens + 1), generator=torch.Generator().manual_seed(0)
    )


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def matrix_flops_per_second(dtype: torch.dtype) -> float:
    """The rate of large matrix products, the median of several, in the contenders' own clock."""
    matrix = torch.full((_PEAK_MATRIX, _PEAK_MATRIX), 1 / _PEAK_MATRIX, dtype=dtype)
    product = matrix @ matrix
    seconds = []
    for _ in range(_PEAK_PRODUCTS):
        started = now()
        product = matrix @ product
        seconds.append(now() - started)
    return 2 * _PEAK_MATRIX**3 / statistics.median(seconds)


now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter


if __name__ == "__main__":
    main()
