"""What recomputation costs and saves: time and peak memory of one forward and backward pass, for each kind.

    python benchmarks/recompute.py [--layers 8] [--width 256] [--rows 8] [--row-tokens 256] [--rounds 5] [--compile]

On the fastest device here, in the type that training would choose. Times are medians of interleaved rounds; the peak
is what is allocated beyond the weights: by CUDA's own count, or on a CPU by the sum that torch's profiler keeps.
"""

import argparse
import statistics
import time
from contextlib import nullcontext

import torch

from hornbook.batching.packing import Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.compiled import CompiledLayers
from hornbook.parallel.recompute import Recompute, recomputed
from hornbook.planning.memory import training_memory
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.runtime import pick_device, pick_dtype

_VOCAB_SIZE = 4096
_KINDS: tuple[Recompute, ...] = ("none", "selective", "full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 8), ("width", 256), ("rows", 8), ("row-tokens", 256), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--compile", action="store_true", help="layers and cross entropy, as training does it")
    options = parser.parse_args()
    device = pick_device()
    dtype = pick_dtype("auto", device)
    section = ModelSection(
        n_layers=options.layers, d_model=options.width, n_heads=options.width // 32, max_seq_len=options.row_tokens
    )
    model = Transformer(config_from_recipe(section, _VOCAB_SIZE)).to(device)
    init_weights(model, seed=0)
    ids = torch.randint(0, _VOCAB_SIZE, (options.rows, options.row_tokens + 1), device=device)
    positions = torch.arange(options.row_tokens, device=device).repeat(options.rows, 1)
    batch = Batch(ids[:, :-1], ids[:, 1:], positions, torch.zeros_like(positions))

    compiled = CompiledLayers(model, device, dtype)
    objective = NextToken().compiled() if options.compile else NextToken()

    def step(kind: Recompute) -> float:
        model.zero_grad()
        started = time.perf_counter()
        in_type = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
        with recomputed(model.model.layers, kind), compiled.attached() if options.compile else nullcontext():
            with in_type:
                loss, _ = objective.loss_sum(model, batch)
            loss.backward()
        loss.item()
        return time.perf_counter() - started

    def peak_bytes(kind: Recompute) -> int:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step(kind)
            return torch.cuda.max_memory_allocated() - before
        with torch.profiler.profile(profile_memory=True) as profile:
            step(kind)
        allocated = peak = 0
        for event in profile.profiler.kineto_results.events():  # in the order of time
            if event.name() == "[memory]":
                allocated += event.nbytes()
                peak = max(peak, allocated)
        return peak

    seconds: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for number in range(options.rounds + 1):
        for kind in _KINDS:
            elapsed = step(kind)
            if number:  # the first round warms up
                seconds[kind].append(elapsed)
    medians = {kind: statistics.median(seconds[kind]) for kind in _KINDS}
    peaks = {kind: peak_bytes(kind) for kind in _KINDS}
    print(f"{options.layers} layers × {options.width}, {options.rows} × {options.row_tokens} tokens, {device}, {dtype}")
    print(f"{'recompute':<10}{'seconds':>9}{'ratio':>7}{'peak MB':>9}{'ratio':>7}{'plan: activations MB':>22}")
    for kind in _KINDS:
        training = PretrainSection(
            tokens=options.rows * options.row_tokens,
            global_batch_tokens=options.rows * options.row_tokens,
            precision="bfloat16" if dtype == torch.bfloat16 else "float32",
            recompute=kind,
        )
        planned = training_memory(
            model.config, training, options.rows, "cpu" if device.type == "cpu" else "accelerator"
        ).activations
        print(
            f"{kind:<10}{medians[kind]:>9.3f}{medians[kind] / medians['none']:>7.2f}"
            f"{peaks[kind] / 1e6:>9.1f}{peaks[kind] / peaks['none']:>7.2f}{planned / 1e6:>22.1f}"
        )


if __name__ == "__main__":
    main()
