"""Patience keeps the model of the best validation of the course that is kept, also where the training went back."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from hornbook.batching.packing import Batch
from hornbook.errors import RunFailed
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.runtime import torch_generator
from hornbook.stages.patience import Patience
from hornbook.training.optimizers import build_optimizer
from hornbook.training.trainer import Trainer

N_ROWS, N_TOKENS, VOCAB_SIZE = 4, 6, 19
NAN = math.nan


class OneBatch:
    """The same random tokens again and again: what is learned from them is of no matter here."""

    def next_batch(self) -> Batch:
        ids_BT = torch.randint(0, VOCAB_SIZE, (N_ROWS, N_TOKENS), generator=torch_generator("batch"))
        positions_BT = torch.arange(N_TOKENS).expand_as(ids_BT)
        return Batch(ids_BT, ids_BT.roll(-1, dims=1), positions_BT, torch.zeros_like(ids_BT))

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        assert state == {}


class NotFiniteAt(NextToken):
    """Next-token prediction whose loss has no value at the calls given that train."""

    def __init__(self, calls: Sequence[int]) -> None:
        super().__init__()
        self.calls, self.n_calls = calls, 0

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, sums = super().loss_sum(model, batch)
        self.n_calls += torch.is_grad_enabled()
        is_bad = torch.is_grad_enabled() and self.n_calls in self.calls
        return (loss * NAN if is_bad else loss), sums


class Course:
    """A training of a tiny model with patience: `values` are what its validations measure, in order."""

    def __init__(self, folder: Path, total_steps: int, values: Sequence[float], bad_calls: Sequence[int] = ()) -> None:
        shape = ModelSection(n_layers=1, d_model=8, n_heads=2, max_seq_len=N_TOKENS)
        model = Transformer(config_from_recipe(shape, VOCAB_SIZE))
        init_weights(model, seed=0)
        section = PretrainSection(
            tokens=20 * N_ROWS * N_TOKENS,
            global_batch_tokens=N_ROWS * N_TOKENS,
            compile=False,
            precision="float32",
            checkpoint_interval_steps=5,
            evaluation_interval_steps=1,
        )
        self._values = iter(values)
        self.weights: list[dict[str, Tensor]] = []
        self.patience = Patience(folder, evaluations=100)
        self.trainer = Trainer(
            model,
            NotFiniteAt(bad_calls),
            OneBatch(),
            build_optimizer(model, section),
            section,
            folder,
            total_steps,
            {"validation": self._validate},
            Console(file=io.StringIO(), width=200),
            seed=1,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )

    def _validate(self, model: Transformer) -> dict[str, float]:
        value = next(self._values)
        self.weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        self.patience.watch(self.trainer, value)
        return {"bits_per_byte": value}

    def kept(self) -> list[int]:
        """Which validation's weights are those that are kept, counted from 0."""
        self.patience.restore_best(self.trainer.model)
        best = self.trainer.model.state_dict()
        return [
            number
            for number, weights in enumerate(self.weights)
            if all(torch.equal(tensor, best[name]) for name, tensor in weights.items())
        ]


@pytest.mark.parametrize(
    ("values_after", "kept"),
    [
        pytest.param([2.5] * 7, 4, id="the best from before the step returned to"),
        pytest.param([2.5, 2.2, 2.5, 1.5, 2.5, 2.5, 2.5], 11 + 3, id="the best since then"),
    ],
)
def test_where_the_training_goes_back_the_course_given_up_has_no_best(
    values_after: list[float], kept: int, tmp_path: Path
) -> None:
    """After five bad steps from the eighth on it is back at step 5; step 7 had the lowest value of all."""
    values = [3.0, 3.0, 3.0, 3.0, 2.0, 1.9, 1.0, 2.5, 2.5, 2.5, 2.5, *values_after]
    course = Course(tmp_path / "finetune", 12, values, bad_calls=range(8, 13))

    result = course.trainer.train()

    assert course.kept() == [kept]
    assert result.best_bits_per_byte == {"validation": values[kept]}


def test_weights_that_no_checkpoint_needs_are_removed(tmp_path: Path) -> None:
    values = [3.0 - step / 10 for step in range(1, 12)]
    Course(tmp_path / "finetune", 10, values).trainer.train()

    course = Course(tmp_path / "finetune", 11, values[10:])
    course.trainer.train()

    names = sorted(path.name for path in (tmp_path / "finetune" / "checkpoints").glob("best*"))
    assert names == [f"best-{step:08d}.safetensors" for step in (5, 10, 11)]
    assert course.kept() == [0]


@pytest.mark.parametrize(("values", "kept"), [([NAN, 2.0, NAN], 1), ([2.0, NAN, 3.0], 0), ([NAN, NAN, NAN], 0)])
def test_a_validation_without_a_value_is_never_better(values: list[float], kept: int, tmp_path: Path) -> None:
    course = Course(tmp_path / "finetune", 3, values)
    course.trainer.train()

    assert course.kept() == [kept]


@pytest.mark.parametrize("damage", [None, b"", b"spoilt", b"x" * 100])
def test_weights_that_are_lost_are_told_in_a_sentence(damage: bytes | None, tmp_path: Path) -> None:
    course = Course(tmp_path / "finetune", 3, [3.0, 2.0, 2.5])
    course.trainer.train()
    path = tmp_path / "finetune" / "checkpoints" / "best-00000002.safetensors"
    path.unlink() if damage is None else path.write_bytes(damage)

    with pytest.raises(RunFailed, match=r"best-00000002.safetensors: the weights .* are missing or damaged. Remove"):
        course.kept()
