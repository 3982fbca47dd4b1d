"""One of several processes that train a tiny model in one layout after another: python layout_worker.py JOB.

JOB is a JSON file with a list of runs, all made by one set of processes, since starting torch takes longer than they
do. Each run is {"name", "layout", "dtype", ...}, and rank 0 leaves its figures and final weights beside JOB. A run that
"continues" another begins with a copy of that one's checkpoint of step 10. `rows_in_memory` is how many rows "fit".
"""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file

from hornbook.batching.loader import Stretch
from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.mesh import Mesh
from hornbook.parallel.parallelize import parallelize
from hornbook.parallel.processes import Processes, joined_processes
from hornbook.parallel.traffic import TrafficCounter
from hornbook.recipe_data import ModelSection
from hornbook.recipe_parallel import ParallelSection
from hornbook.recipe_training import PretrainSection
from hornbook.runtime import torch_generator
from hornbook.training.metrics import read_metrics
from hornbook.training.optimizers import build_optimizer
from hornbook.training.trainer import Trainer

N_ROWS, N_TOKENS, VOCAB_SIZE = 8, 8, 32


class RaggedBatches:
    """One process's rows of random batches: two documents in a row, very different numbers of labels, some none."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.n_drawn = 0
        self._rows = slice(rank * N_ROWS // world_size, (rank + 1) * N_ROWS // world_size)

    def next_batch(self) -> Batch:
        ids = torch.randint(0, VOCAB_SIZE, (N_ROWS, N_TOKENS + 1), generator=torch_generator("batch", self.n_drawn))
        cuts = torch.randint(1, N_TOKENS, (N_ROWS, 1), generator=torch_generator("cut", self.n_drawn))
        shown = torch.randint(0, N_TOKENS + 1, (N_ROWS, 1), generator=torch_generator("shown", self.n_drawn))
        self.n_drawn += 1
        places = torch.arange(N_TOKENS).repeat(N_ROWS, 1)
        is_second = places >= cuts
        batch = Batch(
            input_ids=ids[:, :-1],
            labels=ids[:, 1:].masked_fill(places >= shown, IGNORE_INDEX),
            position_ids=torch.where(is_second, places - cuts, places),
            document_ids=is_second.long(),
        )
        return batch.rows(self._rows.start, self._rows.stop)

    def state_dict(self) -> dict[str, int]:
        return {"n_drawn": self.n_drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.n_drawn = state["n_drawn"]


class LittleMemory(NextToken):
    """The same objective on a device where only so many rows fit."""

    def __init__(self, most_rows: int) -> None:
        super().__init__()
        self._most_rows = most_rows

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if torch.is_grad_enabled() and batch.n_rows > self._most_rows:
            raise torch.OutOfMemoryError("out of memory")
        return super().loss_sum(model, batch)


def train(run: dict[str, Any], folder: Path, processes: Processes) -> tuple[list[float], dict[str, torch.Tensor]]:
    """One run; returns what was measured at each step and the whole model's weights (rank 0 alone has these)."""
    directory = folder / run["name"]
    if "continues" in run:
        processes.first_does(lambda: _copy_half(folder / run["continues"], directory))
    steps, dtype = run.get("steps", 20), getattr(torch, run["dtype"])
    device = torch.device("cpu")
    section = PretrainSection(
        **{
            "tokens": 20 * N_ROWS * N_TOKENS,
            "global_batch_tokens": N_ROWS * N_TOKENS,
            "row_tokens": N_TOKENS,
            "micro_batch_size": 3,
            "optimizer": "adamw",
            "lr": 0.01,
            "clip_norm": 0.5,
            "schedule": "cosine",
            "warmup_fraction": 0.2,
            "compile": False,
            "precision": "float32",
            "checkpoint_interval_steps": 10,
            "evaluation_interval_steps": 10,
            **run.get("section", {}),
        }
    )
    model_fields = {"preset": "llama", "n_layers": 4, "d_model": 16, "n_heads": 4, "n_kv_heads": 2, "d_ff": 32}
    model_section = ModelSection(**(model_fields | {"max_seq_len": N_TOKENS} | run.get("model", {})))
    with torch.device("meta"):
        model = Transformer(config_from_recipe(model_section, VOCAB_SIZE)).to(dtype)
    layout = ParallelSection(**run["layout"]).resolved(processes.world_size)
    mesh = Mesh(layout, device, processes) if torch.distributed.is_initialized() else Mesh.alone(device)
    spread = parallelize(model, mesh, torch.float32)
    if mesh.is_spread:
        spread.init_weights(seed=0)
    else:
        init_weights(spread.shape, seed=0)
    trainer = Trainer(
        spread.model,
        LittleMemory(run["rows_in_memory"]) if "rows_in_memory" in run else NextToken(),
        Stretch(RaggedBatches(mesh.data_rank, mesh.n_data), mesh.context_rank, mesh.section.context),
        build_optimizer(spread.model, section),
        section,
        directory,
        steps,
        {"validation": _validate},
        Console(file=io.StringIO()),
        seed=1,
        device=device,
        dtype=torch.float32,
        spread=spread,
    )
    if run.get("counts_traffic"):
        return [_traffic(trainer, run["name"], folder, processes)], {}
    trainer.train()
    whole = trainer.whole_model()
    records = read_metrics(trainer.directory / "metrics.jsonl")
    measured = [record[name] for name in ("loss_nats", "grad_norm") for record in records]
    measured += [record["evaluation"]["validation"]["loss_nats"] for record in records if "evaluation" in record]
    return measured, dict(whole.state_dict()) if mesh.is_first else {}


def _traffic(trainer: Trainer, name: str, folder: Path, processes: Processes) -> float:
    """Count the second step of a new run, when all is set up; each process writes what it has handed over."""
    trainer._train_step()
    with TrafficCounter() as counter:
        batch = trainer.loader.next_batch()
        trainer._forward_backward(batch, trainer._count(batch))
    (folder / f"{name}-{processes.rank}.traffic.json").write_text(json.dumps(counter.bytes))
    return 0.0


def _copy_half(finished: Path, new: Path) -> None:
    kept = "step-00000010"
    shutil.copytree(finished / "checkpoints" / kept, new / "checkpoints" / kept)
    shutil.copy(finished / "metrics.jsonl", new)


@torch.no_grad()
def _validate(model: Any) -> dict[str, float]:
    batches = RaggedBatches(rank=0, world_size=1)
    batches.load_state_dict({"n_drawn": 1_000_000})
    batch, objective = batches.next_batch(), NextToken()
    return {"loss_nats": float(objective.loss_sum(model, batch)[0] / objective.count(batch))}


def main(job: Path) -> None:
    torch.set_num_threads(1)
    with joined_processes() as processes:
        for run in json.loads(job.read_text()):
            measured, weights = train(run, job.parent, processes)
            if processes.is_first:
                (job.parent / f"{run['name']}.json").write_text(json.dumps(measured))
                tensors = {name: value.contiguous() for name, value in weights.items()}
                save_file(tensors, job.parent / f"{run['name']}.safetensors")
                print("done", run["name"], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
