"""A tiny run for test_exact_resume.py to kill: python killed_run.py FOLDER. Prints a hash of its weights."""

import hashlib
import sys
from pathlib import Path

import torch
from rich.console import Console

from hornbook.batching.packing import Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.runtime import torch_generator
from hornbook.training.optimizers import build_optimizer
from hornbook.training.trainer import Trainer

N_ROWS, N_TOKENS, VOCAB_SIZE, TOTAL_STEPS = 4, 16, 64, 120


class Batches:
    n_drawn = 0

    def next_batch(self) -> Batch:
        ids = torch.randint(0, VOCAB_SIZE, (N_ROWS, N_TOKENS + 1), generator=torch_generator(self.n_drawn))
        self.n_drawn += 1
        positions = torch.arange(N_TOKENS).repeat(N_ROWS, 1)
        return Batch(ids[:, :-1], ids[:, 1:], positions, torch.zeros_like(positions), None)

    def state_dict(self) -> dict[str, int]:
        return {"n_drawn": self.n_drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.n_drawn = state["n_drawn"]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    section = PretrainSection(
        tokens=TOTAL_STEPS * N_ROWS * N_TOKENS,
        global_batch_tokens=N_ROWS * N_TOKENS,
        compile=False,
        checkpoint_interval_steps=7,
        evaluation_interval_steps=10,
    )
    model_section = ModelSection(n_layers=2, d_model=32, n_heads=2, max_seq_len=N_TOKENS)
    model = Transformer(config_from_recipe(model_section, VOCAB_SIZE))
    init_weights(model, seed=0)
    trainer = Trainer(
        model,
        NextToken(),
        Batches(),
        build_optimizer(model, section),
        section,
        folder / "pretrain",
        TOTAL_STEPS,
        {"validation": lambda model: {"bits_per_byte": float(model.head_weight.sum())}},
        Console(),
        seed=1,
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
    )
    trainer.train()
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    print("weights:", digest.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
