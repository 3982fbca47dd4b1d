"""Training speed and MFU of a 124M and a 0.5B model in bfloat16 on one accelerator, beside transformers' Llama.

    python benchmarks/gpu.py [--shapes 124M 0.5B] [--rounds 20]

Steps of the same size (forward, backward, clipping, fused AdamW; ours with Muon, too), compiled, interleaved in one
process; figures are medians. MFU is the model's own operations (the whole attention table counted, nothing that is
computed twice) over the rate of a large matrix product measured here, and over the maker's figure where it is known.
Without an accelerator it runs on the CPU, which makes sense for --shapes test alone.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from training_parts.contenders import Contender, Shape, build

from hornbook.runtime import measured_flops_per_second, pick_device, pick_dtype

SHAPES = {
    "124M": Shape(12, 768, 12, 1024, 32, 50304),
    "0.5B": Shape(24, 1280, 20, 2048, 8, 50304),
    "test": Shape(1, 32, 2, 32, 2, 64),
}
NAMES = ("hornbook AdamW", "hornbook", "transformers Llama")
MAKERS_BFLOAT16_FLOPS_PER_SECOND = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
_WARM_UP_STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["124M", "0.5B"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    options = parser.parse_args()
    device = pick_device()
    dtype = pick_dtype("auto", device)
    peaks = {"measured": measured_flops_per_second("auto")}
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    peaks |= {f"{maker}'s": peak for maker, peak in MAKERS_BFLOAT16_FLOPS_PER_SECOND.items() if maker in device_name}
    print(f"{device_name}, {dtype}, {'eager' if options.eager else 'compiled'}, {options.rounds} rounds")
    for name in options.shapes:
        print_table(name, SHAPES[name], device, dtype, not options.eager, options.rounds, peaks)


def print_table(
    name: str,
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    compiled: bool,
    rounds: int,
    peaks: dict[str, float],
) -> None:
    """One line for each contender, interleaved."""
    contenders = {contender: build(contender, shape, Path(), dtype, compiled, device) for contender in NAMES}
    ids = torch.randint(shape.vocab_size, (shape.rows, shape.row_tokens + 1), device=device)
    for contender in contenders.values():
        for _ in range(_WARM_UP_STEPS):
            contender.step(ids)
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for key, contender in contenders.items():
            seconds[key].append(timed_step(contender, ids))
    print(f"{name}: {shape}")
    header = "".join(f"{f'MFU, {peak}':>16}" for peak in peaks)
    print(f"{'':<20}{'tokens/s':>12}{header}{'ratio to Llama':>16}")
    for key, contender in contenders.items():
        rate = shape.tokens / statistics.median(seconds[key])
        flops = rate * flops_per_token(contender, shape)
        shares = "".join(f"{flops / peak:>16.1%}" for peak in peaks.values())
        ratio = statistics.median(a / b for a, b in zip(seconds[NAMES[-1]], seconds[key], strict=True))
        print(f"{key:<20}{rate:>12,.0f}{shares}{ratio:>16.2f}", flush=True)


def timed_step(contender: Contender, ids: torch.Tensor) -> float:
    """The clock's seconds of one step, which ends when its loss is known."""
    started = time.perf_counter()
    contender.step(ids)
    if ids.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def flops_per_token(contender: Contender, shape: Shape) -> int:
    """6 for each weight of a matrix, and 12 × layers × width × tokens of a row for attention (PaLM, appendix B)."""
    return 6 * contender.matrix_weights + 12 * shape.n_layers * shape.d_model * shape.row_tokens


if __name__ == "__main__":
    main()
