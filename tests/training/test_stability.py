"""Which steps are not made, and how a training finds back."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from hornbook.batching.packing import Batch
from hornbook.errors import RunFailed
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.training.metrics import read_metrics
from hornbook.training.stability import SpikeGuard
from hornbook.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]


def _guard_after(n_steps: int, judges_spikes: bool = True) -> SpikeGuard:
    guard = SpikeGuard(judges_spikes)
    for step in range(n_steps):
        assert guard.judge(3.0 + 0.05 * math.sin(step), 1.0 + 0.1 * math.cos(step)) == "good"
    return guard


def test_a_step_is_bad_where_loss_and_gradient_both_lie_far_above_the_last_ones() -> None:
    for loss, norm, verdict in ((3.1, 1.1, "good"), (5.0, 1.0, "good"), (3.0, 9.0, "good"), (5.0, 9.0, "spike")):
        assert _guard_after(50).judge(loss, norm) == verdict, (loss, norm)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.nan), (3.0, math.inf)])
def test_what_is_not_finite_is_always_bad(loss: float, norm: float) -> None:
    assert _guard_after(0, judges_spikes=False).judge(loss, norm) == "not finite"


def test_too_few_steps_and_a_recipe_that_says_so_judge_no_spikes() -> None:
    assert _guard_after(10).judge(50.0, 90.0) == "good"
    assert _guard_after(50, judges_spikes=False).judge(50.0, 90.0) == "good"


def test_bad_steps_in_a_row_are_counted_and_do_not_become_usual() -> None:
    guard = _guard_after(50)
    for count in range(1, 6):
        assert not guard.has_seen_enough
        assert guard.judge(9.0, 9.0) == "spike"
        assert guard.skipped_in_a_row == count
    assert guard.has_seen_enough
    assert guard.judge(3.0, 1.0) == "good"
    assert guard.skipped_in_a_row == 0


def test_a_guard_that_goes_on_from_json_judges_alike() -> None:
    guard, other = _guard_after(200), SpikeGuard(True)
    guard.judge(9.0, 9.0)
    other.load_state_dict(json.loads(json.dumps(guard.state_dict())))

    assert other.state_dict() == guard.state_dict()
    assert other.usual == guard.usual


# In the trainer


class _SpoiltBatches(NextToken):
    """Losses are multiplied for the batches that begin with one of these numbers, as often as they are drawn.

    broken_model: what the model has to look like for that.
    """

    def __init__(
        self, factor: float, numbers: set[int], broken_model: Callable[[Transformer], bool] | None = None
    ) -> None:
        super().__init__()
        self.factor, self.numbers, self.broken_model = factor, numbers, broken_model
        self.seen: list[int] = []
        self.trainer: Trainer | None = None

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, sums = super().loss_sum(model, batch)
        assert self.trainer is not None
        number = self.trainer.loader.n_drawn  # type: ignore[attr-defined]
        self.seen.append(number)
        is_spoilt = number in self.numbers and (self.broken_model is None or self.broken_model(model))
        return (loss * self.factor if is_spoilt else loss), sums


@pytest.fixture
def spoilt(make_trainer: MakeTrainer) -> Callable[..., tuple[Trainer, io.StringIO]]:
    def make(objective: _SpoiltBatches, folder: str = "pretrain", **fields: Any) -> tuple[Trainer, io.StringIO]:
        said = io.StringIO()
        options: dict[str, Any] = {"checkpoint_interval_steps": 20, "lr": 1e-4, "muon_lr": 1e-4}
        trainer = make_trainer(folder, objective=objective, console=Console(file=said, width=300), **(options | fields))
        objective.trainer = trainer
        return trainer, said

    return make


def _records(trainer: Trainer) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key not in ("seconds", "tokens_per_second")}
        for record in read_metrics(trainer.directory / "metrics.jsonl")
    ]


def test_one_spike_is_skipped_and_told(spoilt: Callable[..., tuple[Trainer, io.StringIO]]) -> None:
    trainer, said = spoilt(_SpoiltBatches(50.0, {45}), total_steps=50)

    result = trainer.train()

    assert result.skipped_steps == 1
    assert [record["step"] for record in _records(trainer) if record["loss_nats"] is None] == [45]
    assert "Step 45 skipped: loss 1" in said.getvalue()
    assert "usual: " in said.getvalue()


def test_losses_without_a_value_lead_back_to_the_checkpoint_and_on_with_other_data(
    spoilt: Callable[..., tuple[Trainer, io.StringIO]],
) -> None:
    objective = _SpoiltBatches(math.nan, {24, 25, 26, 27, 28})
    trainer, said = spoilt(objective, total_steps=30)

    result = trainer.train()

    assert "Bad steps in a row, up to step 28: back to step 20" in said.getvalue()
    assert objective.seen == list(range(1, 39))  # each batch once: ten more than steps, of which eight were undone
    records = _records(trainer)
    assert [record["step"] for record in records] == list(range(1, 31))
    assert [record.get("rolled_back_from_step") for record in records if record["step"] >= 20][:3] == [None, 28, None]
    assert result.skipped_steps == 0
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_a_loss_that_stays_without_a_value_ends_the_run_after_two_returns(
    spoilt: Callable[..., tuple[Trainer, io.StringIO]],
) -> None:
    trainer, said = spoilt(_SpoiltBatches(math.nan, set(range(24, 200))), total_steps=60)

    with pytest.raises(RunFailed, match=r"not finite for 5 steps in a row, up to step \d+, also after going back"):
        trainer.train()
    assert said.getvalue().count("back to step 20") == 2
    assert (trainer.directory / "checkpoints" / "step-00000020").is_dir()


def test_data_that_has_changed_is_not_taken_for_a_broken_model(
    spoilt: Callable[..., tuple[Trainer, io.StringIO]],
) -> None:
    trainer, said = spoilt(_SpoiltBatches(50.0, set(range(45, 1000))), total_steps=60)

    result = trainer.train()

    assert "step-00000040 does no better on the same data, so it is the data that has changed" in said.getvalue()
    assert result.skipped_steps == 5
    assert [record["step"] for record in _records(trainer)] == list(range(1, 61))


def test_a_model_that_broke_goes_back_to_what_it_was(spoilt: Callable[..., tuple[Trainer, io.StringIO]]) -> None:
    def is_broken(model: Transformer) -> bool:
        return bool(model.head_weight.abs().max() > 50)

    objective = _SpoiltBatches(50.0, set(range(1, 1000)), is_broken)
    trainer, said = spoilt(objective, total_steps=60)
    next_batch = trainer.loader.next_batch

    def break_at_44() -> Batch:
        if trainer.step == 44 and trainer.loader.n_drawn == 44:  # type: ignore[attr-defined]
            with torch.no_grad():
                trainer.model.head_weight.mul_(1000)
        return next_batch()

    trainer.loader.next_batch = break_at_44  # type: ignore[method-assign]
    trainer.train()

    assert "up to step 49: back to step 40" in said.getvalue()
    assert not is_broken(trainer.model)


def test_a_run_killed_after_a_return_ends_with_the_same_weights(
    spoilt: Callable[..., tuple[Trainer, io.StringIO]],
) -> None:
    class KilledAt(_SpoiltBatches):
        def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            if len(self.seen) == 32:
                raise KeyboardInterrupt
            return super().loss_sum(model, batch)

    bad = {24, 25, 26, 27, 28}
    whole, _ = spoilt(_SpoiltBatches(math.nan, bad), "whole/pretrain", total_steps=45)
    whole.train()
    killed, _ = spoilt(KilledAt(math.nan, bad), "killed/pretrain", total_steps=45)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed, _ = spoilt(_SpoiltBatches(math.nan, bad), "killed/pretrain", total_steps=45)
    resumed.train()

    assert _records(whole) == _records(resumed)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_size_of_activations_is_logged_with_each_evaluation(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(
        evaluators={"validation": lambda model: {"bits_per_byte": 1.0}}, total_steps=4, evaluation_interval_steps=2
    )
    trainer.train()

    logged = [record["activation_rms"] for record in _records(trainer) if "activation_rms" in record]
    assert [set(sizes) for sizes in logged] == [{"layer_1", "layer_2"}] * 2
    assert all(0 < size < 100 for sizes in logged for size in sizes.values())
