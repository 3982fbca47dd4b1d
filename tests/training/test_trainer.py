"""The promises of the training loop: the batch's gradient however it is cut, and nothing lost when it is
stopped."""

import io
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.errors import RunFailed
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.training.metrics import read_metrics
from hornbook.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]


def _losses(trainer: Trainer) -> list[float]:
    return [record["loss_nats"] for record in read_metrics(trainer.directory / "metrics.jsonl")]


def _weights(trainer: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def _is_same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _evaluate_step_by_weight(model: Transformer) -> dict[str, float]:
    return {"bits_per_byte": float(model.head_weight.square().sum())}


# Gradients and micro-batches


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_gradient_of_ragged_rows_is_that_of_the_batch_however_it_is_cut(
    dtype: torch.dtype, tolerance: float, make_trainer: MakeTrainer
) -> None:
    batch = make_trainer().loader.next_batch()
    labels_per_row = (batch.labels != IGNORE_INDEX).sum(1)
    assert labels_per_row.min() == 0  # a mean of means would divide by this
    assert labels_per_row.max() >= 6

    def gradients(rows: int) -> Tensor:
        trainer = make_trainer(dtype=dtype, micro_batch_size=rows)
        trainer._forward_backward(batch, trainer.objective.count(batch))
        return torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])

    expected = make_trainer(dtype=dtype).model
    mean_loss, _ = NextToken().loss_sum(expected, batch)
    (mean_loss / labels_per_row.sum()).backward()
    whole = torch.cat([parameter.grad.flatten() for parameter in expected.parameters()])
    for rows in (1, 2, 3, 4, 8):
        assert (gradients(rows) - whole).norm() <= tolerance * whole.norm(), rows


class _OutOfMemoryAt(NextToken):
    """Next-token prediction on a machine whose memory runs out at the calls given, before or after the
    forward."""

    def __init__(self, calls: set[int], at_most_rows: int = 1000) -> None:
        super().__init__()
        self.calls, self.at_most_rows, self.n_calls = calls, at_most_rows, 0

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        self.n_calls += 1
        loss, sums = super().loss_sum(model, batch)
        if self.n_calls in self.calls or batch.n_rows > self.at_most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return loss, sums


@pytest.mark.parametrize("call", range(1, 13))
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_running_out_of_memory_at_any_micro_batch_leaves_the_curve(
    call: int, optimizer: str, dtype: torch.dtype, tolerance: float, make_trainer: MakeTrainer
) -> None:
    options = {"micro_batch_size": 4, "optimizer": optimizer, "dtype": dtype}
    undisturbed = make_trainer("undisturbed", **options)
    undisturbed.train()

    disturbed = make_trainer("disturbed", objective=_OutOfMemoryAt({call}), **options)
    result = disturbed.train()

    assert result.micro_batch_size == 2
    assert _losses(disturbed) == pytest.approx(_losses(undisturbed), rel=tolerance)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_running_out_of_memory_again_and_in_the_backward_pass_leaves_the_curve(
    optimizer: str, dtype: torch.dtype, tolerance: float, make_trainer: MakeTrainer
) -> None:
    options = {"optimizer": optimizer, "dtype": dtype, "total_steps": 20}
    undisturbed = make_trainer("undisturbed", **options)
    undisturbed.train()
    disturbed = make_trainer("disturbed", objective=_OutOfMemoryAt({2, 4}), **options)
    failures = iter((False, True))

    def fail_sometimes(gradient: Tensor) -> Tensor:
        if disturbed.step == 4 and next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return gradient

    disturbed.model.head_weight.register_hook(fail_sometimes)
    result = disturbed.train()

    assert result.micro_batch_size == 1
    assert _losses(disturbed) == pytest.approx(_losses(undisturbed), rel=tolerance)


def test_the_size_that_fits_is_found_said_and_kept(make_trainer: MakeTrainer) -> None:
    said = io.StringIO()
    objective = _OutOfMemoryAt(set(), at_most_rows=3)

    trainer = make_trainer(objective=objective, console=Console(file=said, width=200))
    result = trainer.train()

    assert result.micro_batch_size == 2
    assert said.getvalue().count("Out of memory") == 2
    assert objective.n_calls == 2 + 4 * 6  # two failures in the first step, then four micro-batches for each step
    sizes = [record["micro_batch_size"] for record in read_metrics(trainer.directory / "metrics.jsonl")]
    assert sizes == [2] * 6


def test_a_row_that_does_not_fit_ends_the_run_with_advice(make_trainer: MakeTrainer) -> None:
    with pytest.raises(RunFailed, match="single row does not fit"):
        make_trainer(objective=_OutOfMemoryAt(set(), at_most_rows=0)).train()


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputing_activations_changes_nothing_that_is_learned(recompute: str, make_trainer: MakeTrainer) -> None:
    plain, recomputing = make_trainer("plain"), make_trainer("recomputing", recompute=recompute)
    plain.train()
    recomputing.train()

    assert _is_same(_weights(plain), _weights(recomputing))


# Learning


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_loss_falls_on_what_is_repeated(optimizer: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(total_steps=60, optimizer=optimizer, lr=0.02, checkpoint_interval_steps=100)
    batch = trainer.loader.next_batch()
    trainer.loader.next_batch = lambda: batch  # type: ignore[method-assign]
    trainer.train()

    losses = _losses(trainer)
    assert losses[0] > 0.8 * math.log(19)
    assert losses[-1] < 0.5 * losses[0]


def test_long_gradients_are_shortened_and_their_true_length_is_logged(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(clip_norm=1e-3)
    seen = []
    step = trainer.optimizer.step

    def watch() -> None:
        parameters = list(trainer.model.parameters())
        seen.append(torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters]).item())
        step()

    trainer.optimizer.step = watch  # type: ignore[method-assign]
    trainer.train()

    assert seen == pytest.approx([1e-3] * 6, rel=1e-3)
    assert all(record["grad_norm"] > 0.01 for record in read_metrics(trainer.directory / "metrics.jsonl"))


def test_a_batch_without_labels_is_no_accident(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    batch = trainer.loader.next_batch()
    batch.labels.fill_(IGNORE_INDEX)
    trainer.loader.next_batch = lambda: batch  # type: ignore[method-assign]

    trainer.train()

    assert _losses(trainer) == [0.0] * 6
    assert all(weight.isfinite().all() for weight in _weights(trainer))


class _NotFiniteAt(NextToken):
    def __init__(self, calls: set[int]) -> None:
        super().__init__()
        self.calls, self.n_calls = calls, 0

    def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        self.n_calls += 1
        loss, sums = super().loss_sum(model, batch)
        return (loss * float("nan") if self.n_calls in self.calls else loss), sums


def test_a_step_that_is_not_finite_is_skipped_and_the_next_goes_on(make_trainer: MakeTrainer) -> None:
    said = io.StringIO()
    trainer = make_trainer(objective=_NotFiniteAt({3}), console=Console(file=said, width=200))

    result = trainer.train()

    losses = _losses(trainer)
    assert losses[2] is None
    assert None not in losses[:2] + losses[3:]
    assert result.skipped_steps == 1
    assert "Step 3 skipped" in said.getvalue()
    assert all(weight.isfinite().all() for weight in _weights(trainer))


def test_a_skipped_step_leaves_weights_and_optimizer_as_they_were(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(objective=_NotFiniteAt({2}))
    trainer._train_step()
    before = {name: tensor.clone() for name, tensor in trainer._tensors().items()}

    trainer._train_step()

    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer._tensors().items())
    trainer._train_step()
    assert not all(torch.equal(tensor, before[name]) for name, tensor in trainer._tensors().items())


def test_many_steps_in_a_row_that_are_not_finite_end_the_run(make_trainer: MakeTrainer) -> None:
    with pytest.raises(RunFailed, match="5 steps in a row"):
        make_trainer(objective=_NotFiniteAt({1, 2, 3, 4, 5})).train()


def test_weights_without_a_value_end_the_run_with_the_same_sentence(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    with torch.no_grad():
        trainer.model.head_weight[0, 0] = float("nan")
    trainer.notes = lambda: {"update_ratio": float("nan")}

    with pytest.raises(RunFailed, match="not finite for 5 steps in a row"):
        trainer.train()


# Evaluation and what is written


def test_a_figure_without_a_finite_value_is_left_out_of_its_line(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(evaluators={"validation": lambda model: {"bits_per_byte": math.nan, "perplexity": 2.0}})
    trainer.notes = lambda: {"update_ratio": math.inf, "labelled_fraction": 0.5}

    result = trainer.train()

    records = read_metrics(trainer.directory / "metrics.jsonl")
    assert len(records) == 6
    assert all("update_ratio" not in record and record["labelled_fraction"] == 0.5 for record in records)
    assert result.last_evaluation == {"validation": {"perplexity": 2.0}}
    assert result.best_bits_per_byte == {}


def test_evaluators_run_at_intervals_and_at_the_end_without_gradients(make_trainer: MakeTrainer) -> None:
    modes = []

    def evaluate(model: Transformer) -> dict[str, float]:
        modes.append((model.training, torch.is_grad_enabled()))
        return {"bits_per_byte": 9.0 - len(modes)}

    trainer = make_trainer(evaluators={"validation": evaluate}, total_steps=5, evaluation_interval_steps=2)
    result = trainer.train()

    records = read_metrics(trainer.directory / "metrics.jsonl")
    assert [record["step"] for record in records if "evaluation" in record] == [2, 4, 5]
    assert modes == [(False, False)] * 3
    assert trainer.model.training
    assert result.last_evaluation == {"validation": {"bits_per_byte": 6.0}}
    assert result.best_bits_per_byte == {"validation": 6.0}


def test_every_step_has_one_line_of_metrics_with_these_fields(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(warmup_fraction=0.5, lr=0.01, schedule="constant")
    result = trainer.train()

    records = read_metrics(trainer.directory / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["tokens"] for record in records] == [48 * step for step in range(1, 7)]
    assert [record["lr"] for record in records] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01, 0.01, 0.01, 0.01])
    assert "tokens_per_second" not in records[0]  # the first step warms up
    for record in records[1:]:
        assert record["tokens_per_second"] == pytest.approx(48 / record["seconds"], rel=0.01)
    assert (result.steps, result.tokens, result.micro_batch_size) == (6, 6 * 48, 8)
    assert result.final_loss_nats == records[-1]["loss_nats"]


def test_sums_of_the_objective_are_logged_as_means_over_the_batch(make_trainer: MakeTrainer) -> None:
    class Counting(NextToken):
        def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            loss, _ = super().loss_sum(model, batch)
            return loss, {"doubled": 2 * loss}

    trainer = make_trainer(objective=Counting(), micro_batch_size=3)
    trainer.train()

    for record in read_metrics(trainer.directory / "metrics.jsonl"):
        assert record["doubled"] == pytest.approx(2 * record["loss_nats"], rel=1e-5)


# Stopping and going on


def test_a_finished_run_that_is_run_again_gives_the_same_result_without_training(
    make_trainer: MakeTrainer,
) -> None:
    options: dict[str, Any] = {"evaluators": {"validation": _evaluate_step_by_weight}}
    first = make_trainer(**options)
    result = first.train()

    again = make_trainer(objective=_OutOfMemoryAt(set(), at_most_rows=0), **options)

    assert again.train() == result
    assert _is_same(_weights(first), _weights(again))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("stop_step", [1, 3, 4, 5])
def test_a_run_stopped_by_a_signal_saves_and_goes_on_to_the_same_weights(
    optimizer: str, stop_step: int, make_trainer: MakeTrainer
) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "checkpoint_interval_steps": 4}
    whole = make_trainer("whole", **options)
    whole.train()

    class StoppedAt(NextToken):
        n_calls = 0

        def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            self.n_calls += 1
            if self.n_calls == stop_step:
                signal.raise_signal(signal.SIGTERM)
            return super().loss_sum(model, batch)

    # The seed of a step is derived from the folder's name too: the same name, in another place.
    stopped = make_trainer("stopped/whole", objective=StoppedAt(), **options)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RunFailed, match=f"SIGTERM after step {stop_step} of 6.*Run the same command to continue"):
        stopped.train()
    assert signal.getsignal(signal.SIGTERM) == handler

    resumed = make_trainer("stopped/whole", **options)
    resumed.train()

    assert _is_same(_weights(whole), _weights(resumed))
    assert _losses(whole) == _losses(resumed)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(make_trainer: MakeTrainer) -> None:
    options: dict[str, Any] = {"checkpoint_interval_steps": 2, "keep_checkpoints": 3}
    first = make_trainer(**options)
    first.train()
    expected, losses = _weights(first), _losses(first)
    newest = first.directory / "checkpoints" / "step-00000006"
    tensors = max(newest.iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)

    said = io.StringIO()
    again = make_trainer(console=Console(file=said, width=500), **options)
    again.train()

    assert "step-00000006: this checkpoint is damaged" in said.getvalue()
    assert "Going on from step 4 of 6" in said.getvalue()
    assert _is_same(_weights(again), expected)
    assert _losses(again) == losses


def test_lines_written_after_the_checkpoint_are_not_kept_twice(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.train()
    path: Path = trainer.directory / "metrics.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"step": 7, "loss_nats": 1.0}) + '\n{"step": 8, "lo')

    make_trainer().train()

    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3, 4, 5, 6]


def test_the_micro_batch_size_that_was_found_is_kept_when_going_on_also_without_a_checkpoint(
    make_trainer: MakeTrainer,
) -> None:
    class KilledAfter(_OutOfMemoryAt):
        def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            if self.n_calls == 10:
                raise KeyboardInterrupt
            return super().loss_sum(model, batch)

    with pytest.raises(KeyboardInterrupt):
        make_trainer(objective=KilledAfter(set(), at_most_rows=2)).train()

    resumed = make_trainer(total_steps=6)

    assert resumed.train().micro_batch_size == 2


# Compiling


def test_where_the_compiler_fails_the_run_goes_on_and_says_so_once(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_badly(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def fail(*_: Any) -> None:
            raise RuntimeError("no C++ compiler was found\nand much more")

        return fail

    monkeypatch.setattr(torch, "compile", compile_badly)
    said = io.StringIO()
    trainer = make_trainer(compile=True, console=Console(file=said, width=200))
    trainer.train()
    plain = make_trainer("elsewhere/pretrain")
    plain.train()

    complaints = [line for line in said.getvalue().splitlines() if "torch.compile" in line]
    assert complaints == [
        "torch.compile failed (RuntimeError: no C++ compiler was found); going on without it, more slowly."
    ]
    assert _is_same(_weights(trainer), _weights(plain))


def test_an_error_of_the_model_is_not_hidden_by_compiling(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(NextToken):
        def loss_sum(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            raise ValueError("broken")

    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    with pytest.raises(ValueError, match="broken"):
        make_trainer(compile=True, objective=Broken()).train()


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_a_compiled_run_follows_the_plain_one(recompute: str, make_trainer: MakeTrainer) -> None:
    said = io.StringIO()
    options: dict[str, Any] = {"optimizer": "adamw", "micro_batch_size": 4}
    compiled = make_trainer(
        "compiled", compile=True, recompute=recompute, console=Console(file=said, width=200), **options
    )
    compiled.train()
    plain = make_trainer("plain", **options)
    plain.train()

    assert "torch.compile failed" not in said.getvalue()
    assert _losses(compiled) == pytest.approx(_losses(plain), rel=1e-4)
