"""How long pipelines wait, against the formula, and what processes send each other, against the planner.

    python benchmarks/parallel.py bubble --svg docs/pipeline-bubble.svg
    python benchmarks/parallel.py traffic

bubble: layers that sleep instead of computing, so that processes which share a core do not wait for each other's
arithmetic; the schedule, the sending and all else are the real ones. The waiting is the part of a step's time in which
a process does neither a forward nor a backward pass, with m micro-batches (p-1)/(m+p-1) by the formula.

traffic: one step of a small model in each layout; bytes counted where torch hands them to its process groups.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hornbook.batching.packing import Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.mesh import Mesh
from hornbook.parallel.parallelize import SpreadModel, parallelize
from hornbook.parallel.pipeline import PipelinedModel
from hornbook.parallel.processes import Processes, joined_processes
from hornbook.parallel.traffic import TrafficCounter
from hornbook.planning.communication import step_exchanges
from hornbook.planning.layout import Layout
from hornbook.recipe_data import ModelSection
from hornbook.recipe_parallel import ParallelSection
from hornbook.runtime import torch_generator
from hornbook.training.forward_backward import ForwardBackward
from hornbook.training.microbatch import MicroBatchSize

FORWARD_SECONDS, BACKWARD_SECONDS = 0.2, 0.4
REPEATS = 2
N_ROWS, N_TOKENS, VOCAB_SIZE = 16, 16, 64
TRAFFIC_LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "shard 2": (2, {"shard": 2}),
    "replicate 2": (2, {"replicate": 2, "shard": 1}),
    "tensor 2": (2, {"tensor": 2, "shard": 1}),
    "context 2": (2, {"context": 2, "shard": 1}),
    "pipeline 2, 1f1b": (2, {"pipeline": 2, "shard": 1}),
    "pipeline 2, interleaved": (2, {"pipeline": 2, "shard": 1, "schedule": "interleaved"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bubble", "traffic", "worker"])
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--processes", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--micro-batches", type=int, nargs="*", default=[4, 8, 16])
    parser.add_argument("--job", type=Path)
    options = parser.parse_args()
    if options.what == "worker":
        _work(options.job)
    elif options.what == "bubble":
        _bubble(options.processes, options.micro_batches, options.svg)
    else:
        _traffic()


def _bubble(processes: list[int], micro_batches: list[int], svg: Path | None) -> None:
    rows = []
    for p in processes:
        points = [{"schedule": name, "m": m} for name in ("gpipe", "1f1b") for m in micro_batches if m >= p]
        results = _start(p, {"kind": "bubble", "points": points})[0]
        rows += [(p, point["schedule"], point["m"], waited) for point, waited in zip(points, results, strict=True)]
    print(f"{'p':>3} {'m':>4} {'schedule':>9} {'waiting':>9} {'formula':>9}")
    for p, schedule, m, waited in rows:
        print(f"{p:>3} {m:>4} {schedule:>9} {waited:>9.1%} {_formula(p, m):>9.1%}")
    if svg is not None:
        _draw(rows, svg)


def _formula(p: int, m: int) -> float:
    return (p - 1) / (m + p - 1)


def _draw(rows: list[tuple[int, str, int, float]], svg: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6))
    for colour, p in zip(("#1b6ca8", "#c1440e", "#3a7d44"), sorted({row[0] for row in rows}), strict=False):
        most = max(row[2] for row in rows)
        counts = list(range(p, most + 1))
        axes.plot(counts, [_formula(p, m) for m in counts], color=colour, label=f"(p-1)/(m+p-1), p = {p}")
        for marker, schedule in (("o", "gpipe"), ("x", "1f1b")):
            found = [(row[2], row[3]) for row in rows if row[:2] == (p, schedule)]
            axes.plot(*zip(*found, strict=True), marker, color=colour, label=f"{schedule}, measured, p = {p}")
    axes.set(xlabel="micro-batches of a step, m", ylabel="share of the time that is waited", ylim=(0, None))
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(svg)


def _traffic() -> None:
    print(f"{'layout':<26}{'counted kB':>12}{'formula kB':>12}{'difference':>12}")
    for name, (world_size, layout) in TRAFFIC_LAYOUTS.items():
        counted = _start(world_size, {"kind": "traffic", "layout": layout})
        measured = statistics.fmean(sum(one["bytes"].values()) for one in counted)
        cut = Layout(**layout)
        tokens = N_ROWS * N_TOKENS // cut.data // cut.context
        exchanges = step_exchanges(_model().config, cut, tokens, counted[0]["micro_batches"], weight_bytes=4)
        expected = sum(exchange.n_bytes for exchange in exchanges)
        print(f"{name:<26}{measured / 1e3:>12,.1f}{expected / 1e3:>12,.1f}{measured / expected - 1:>12.1%}")


def _model() -> Transformer:
    section = ModelSection(n_layers=4, d_model=64, n_heads=4, max_seq_len=N_TOKENS, d_ff=128)
    model = Transformer(config_from_recipe(section, VOCAB_SIZE))
    init_weights(model, seed=0)
    return model


def _start(world_size: int, job: dict[str, Any]) -> list[Any]:
    """Run the job in that many processes; returns what each of them found."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job))
        common = os.environ | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(world_size),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, __file__, "worker", "--job", str(path)]
        workers = [
            subprocess.Popen(command, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(world_size)
        ]
        if any(worker.wait() for worker in workers):
            raise SystemExit("a worker failed")
        return [json.loads((Path(folder) / f"found-{rank}.json").read_text()) for rank in range(world_size)]


def _work(path: Path) -> None:
    job = json.loads(path.read_text())
    with joined_processes() as processes:
        found: Any
        if job["kind"] == "traffic":
            found = _count(_spread(_model(), job["layout"], processes))
        else:
            found = [_waiting(point, processes) for point in job["points"]]
        (path.parent / f"found-{processes.rank}.json").write_text(json.dumps(found))


def _spread(model: Transformer, layout: dict[str, Any], processes: Processes) -> SpreadModel:
    device = torch.device("cpu")
    mesh = Mesh(ParallelSection(**layout), device, processes)
    return parallelize(model, mesh, torch.float32)


def _batch(n_rows: int) -> Batch:
    ids = torch.randint(0, VOCAB_SIZE, (n_rows, N_TOKENS + 1), generator=torch_generator("batch"))
    positions = torch.arange(N_TOKENS).repeat(n_rows, 1)
    return Batch(ids[:, :-1], ids[:, 1:], positions, torch.zeros_like(positions))


def _count(spread: SpreadModel) -> dict[str, Any]:
    """Bytes of one step, the second: the first also sets things up."""
    mesh, pieces = spread.mesh, 4
    stretch = N_TOKENS // mesh.section.context
    batch = _batch(N_ROWS // mesh.n_data).tokens(mesh.context_rank * stretch, (mesh.context_rank + 1) * stretch)
    pass_through = ForwardBackward(
        spread, NextToken(), MicroBatchSize(batch.n_rows // pieces), Console(), torch.float32, compiles=False
    )
    count = torch.tensor(100)
    pass_through(batch, count)
    with TrafficCounter() as counter:
        pass_through(batch, count)
    return {"bytes": dict(counter.bytes), "micro_batches": pieces}


def _waiting(point: dict[str, Any], processes: Processes) -> float:
    """The share of a step's time in which a process neither sleeps forward nor backward."""
    model = _model()
    for layer in model.model.layers:
        layer.register_forward_hook(lambda *_: time.sleep(FORWARD_SECONDS))
        layer.register_full_backward_hook(lambda *_: time.sleep(BACKWARD_SECONDS))
    layers = len(model.model.layers) // processes.world_size
    layout = {"pipeline": processes.world_size, "shard": 1, "schedule": point["schedule"]}
    pipelined = _spread(model, layout, processes).model
    assert isinstance(pipelined, PipelinedModel)
    seconds = []
    for _ in range(REPEATS + 1):
        torch.distributed.barrier()
        started = time.perf_counter()
        pipelined.forward_backward(_batch(point["m"]), point["m"], NextToken().loss_sum, torch.tensor(100))
        torch.distributed.barrier()
        seconds.append(time.perf_counter() - started)
        pipelined.zero_grad()
    busy = point["m"] * layers * (FORWARD_SECONDS + BACKWARD_SECONDS)
    return 1 - busy / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
