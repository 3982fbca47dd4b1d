"""The training loop: the only one of the project, and its only optimizer step, for every stage.

A step takes one global batch. The labels of the whole batch are counted first; then each micro-batch
backpropagates its summed loss over that count. So the gradient, and with it the course of the training, does
not depend on how many rows fit in memory at once, and running out of memory costs one step's time and nothing
else.

A run that is killed at any moment and started again ends with the same weights, bit for bit. Everything that
the next step depends on is in the checkpoint (weights, optimizer, the loader's place in the data, counters)
or a function of the step's number (learning rate, random draws).

A step whose loss or gradient is out of bounds is not made. After several in a row the training goes back to the
last good checkpoint and on with other data.

Weights, optimizer and gradients are in the model's own type, float32; bfloat16 is a type to compute in, by
autocast.

Several processes run this same loop in step, each with its share of the rows and its part of the model
(hornbook.parallel). What decides anything is summed over all of them, or decided by rank 0 and told.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor

from hornbook.batching.packing import Batch
from hornbook.errors import RunFailed
from hornbook.model.transformer import Transformer
from hornbook.objectives.objective import Objective
from hornbook.parallel.data import let_go
from hornbook.parallel.parallelize import SpreadModel
from hornbook.parallel.shards import named_parameters
from hornbook.recipe_training import TrainingSection
from hornbook.runtime import derive_seed
from hornbook.training.activations import activation_rms
from hornbook.training.checkpoint import (
    CheckpointWriter,
    intact_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    read_state,
    remove_unfinished_checkpoints,
)
from hornbook.training.disk import disk_trouble_told
from hornbook.training.forward_backward import ForwardBackward
from hornbook.training.interruption import StopRequest
from hornbook.training.metrics import Evaluation, Record, TrainingResult, read_metrics
from hornbook.training.microbatch import MicroBatchSize
from hornbook.training.optimizers import MuonWithAdamW
from hornbook.training.progress import Yardstick
from hornbook.training.reporting import Reporting, metrics_path, result_of
from hornbook.training.schedule import learning_rate_scale
from hornbook.training.stability import SpikeGuard, Verdict

_RETURNS_TO_ONE_CHECKPOINT_AT_MOST = 2

Evaluator = Callable[[Transformer], dict[str, float]]


class BatchSource(Protocol):
    """Where the batches come from: this process's share of each step's rows.

    Its state must be what JSON can hold, and the same in every process.
    """

    def next_batch(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Trainer:
    """Trains `model` for `total_steps` global batches, and keeps what it writes in `directory`.

    There are checkpoints/ and metrics.jsonl. Where `directory` holds checkpoints already, `train` goes on
    from the newest. The model is on `device` before the optimizer is built, and `section` says the rest. Each
    evaluator is called on the model in evaluation mode, without gradients, under the same autocast as the
    training. With a yardstick, the share of the machine's rate that is reached is shown. `notes` gives more figures for
    the line of each step that was made. `spread` is the model as it is spread over processes; then `model` is this
    process's part.
    """

    def __init__(
        self,
        model: Transformer,
        objective: Objective,
        loader: BatchSource,
        optimizer: MuonWithAdamW,
        section: TrainingSection,
        directory: Path,
        total_steps: int,
        evaluators: Mapping[str, Evaluator],
        console: Console,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        yardstick: Yardstick | None = None,
        notes: Callable[[], Mapping[str, float]] = dict,
        spread: SpreadModel | None = None,
    ) -> None:
        self.spread = SpreadModel.alone(model, device) if spread is None else spread
        self.mesh = self.spread.mesh
        self.model, self.objective, self.loader, self.optimizer = model, objective, loader, optimizer
        self.section, self.directory, self.total_steps = section, directory, total_steps
        self.evaluators, self.console, self.seed = evaluators, console, seed
        self.device, self.dtype, self.yardstick, self.notes = device, dtype, yardstick, notes

        self.step = 0
        self.tokens_seen = 0
        self.guard = SpikeGuard(section.skip_spikes)
        rows = section.global_batch_tokens // (section.row_tokens or model.config.max_seq_len) // self.mesh.n_data
        self.micro_batches = MicroBatchSize(
            min(section.micro_batch_size or rows, rows), self._checkpoints / "micro_batch.json", device.type
        )
        self.micro_batches.rows = self.mesh.tell(self.micro_batches.rows)
        self._forward_backward = ForwardBackward(
            self.spread, objective, self.micro_batches, console, dtype, section.compile
        )
        self._returned_to_step: int | None = None
        self._returns = 0
        self._rolled_back_from_step: int | None = None
        self._is_warm = False
        self._ends_early = False

    def train(self) -> TrainingResult:
        """Go on from the newest checkpoint, or begin, and train to the end.

        Raises RunFailed where the loss stays without a finite value, where a single row does not fit in memory, where
        the disk cannot be written, and after a checkpoint was saved because the process was asked to stop.
        """
        with disk_trouble_told(self.directory), ExitStack() as stack:
            self._resume()
            stop = stack.enter_context(StopRequest())
            writer = stack.enter_context(
                CheckpointWriter(
                    self._checkpoints,
                    self.section.keep_checkpoints,
                    self.section.milestone_interval_steps,
                    self.mesh,
                )
            )
            report = stack.enter_context(
                Reporting(
                    self.directory,
                    self.step,
                    self.total_steps,
                    self.section,
                    self.console,
                    self.mesh,
                    self.yardstick,
                )
            )
            stack.enter_context(self.spread.training(self.section.recompute))
            self.model.train()
            while self.step < self.total_steps:
                record, verdict = self._train_step()
                if self.guard.has_seen_enough and self._recover(verdict, writer):
                    report.forget_after(self.step)
                    continue
                is_due = self.step == self.total_steps or self.step % self.section.evaluation_interval_steps == 0
                if self.evaluators and is_due:
                    record |= self._evaluate()
                is_last = self.step == self.total_steps
                report.write(record)
                signal_name = stop.agreed(self.mesh)
                is_stopping = signal_name is not None and not is_last
                if is_last or is_stopping or self._is_time_to_save():
                    report.sync()
                    self._save(writer)
                writer.check()
                if is_stopping:
                    writer.wait()
                    raise RunFailed(
                        f"Stopped by {signal_name} after step {self.step} of {self.total_steps}, "
                        "which is saved. Run the same command to continue."
                    )
        return result_of(self.directory, self.mesh)

    def end_early(self) -> None:
        """Make this step the last one, also for a run that begins again at its checkpoint."""
        self.total_steps, self._ends_early = self.step, True

    def whole_model(self) -> Transformer:
        """The trained model in one piece: in rank 0, and without values in the others. All have to call it."""
        return self.spread.whole_model()

    def _train_step(self) -> tuple[Record, Verdict]:
        """One global batch: forward, backward, optimizer. Returns the step's line of metrics, and what it was."""
        started = time.perf_counter()
        was_warm, rows_before = self._is_warm, self.micro_batches.rows
        torch.manual_seed(derive_seed(self.seed, self.directory.name, self.step))
        batch = self._batch = self.loader.next_batch().to(self.device)
        count = self._count(batch)
        loss, sums = self._forward_backward(batch, count)
        grad_norm = self.spread.clip(self.section.clip_norm)
        figures = self.mesh.add_up(torch.stack([loss, *(value / count for value in sums.values())]))
        # The only place where the host waits for the device: what it reads decides whether to update.
        values = torch.cat([grad_norm[None], figures / self.mesh.section.tensor]).tolist()
        verdict = self._judge(values[1], values[0])
        scale = learning_rate_scale(self.step, self.total_steps, self.section)
        if verdict == "good":
            self.optimizer.scale_learning_rates(scale)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

        n_tokens = batch.input_ids.numel() * self.mesh.n_data * self.mesh.section.context
        self.step += 1
        self.tokens_seen += n_tokens
        self._is_warm = True
        seconds = time.perf_counter() - started
        record: Record = {
            "step": self.step,
            "tokens": self.tokens_seen,
            "loss_nats": values[1] if verdict == "good" else None,
            "grad_norm": values[0] if math.isfinite(values[0]) else None,
            "lr": self.section.lr * scale,
            "seconds": round(seconds, 6),
            "micro_batch_size": self.micro_batches.rows,
        }
        if was_warm and self.micro_batches.rows == rows_before:
            record["tokens_per_second"] = round(n_tokens / seconds, 1)
        if self._rolled_back_from_step is not None:
            record["rolled_back_from_step"], self._rolled_back_from_step = self._rolled_back_from_step, None
        record |= self.notes()
        record |= zip(sums, values[2:], strict=True)
        return record, verdict

    def _count(self, batch: Batch) -> Tensor:
        """What the loss of the whole step is divided by: the count of all shares of its rows."""
        return self.mesh.add_up_shares(self.objective.count(batch)).clamp_min(1)

    def _judge(self, loss: float, grad_norm: float) -> Verdict:
        """Whether to make the step; tells of one that is skipped."""
        usual = self.guard.usual
        verdict = self.guard.judge(loss, grad_norm)
        if verdict != "good":
            self.console.print(
                f"Step {self.step + 1} skipped: loss {loss:.3g}, norm of the gradient {grad_norm:.3g} ({usual}).",
                markup=False,
            )
        return verdict

    def _recover(self, verdict: Verdict, writer: CheckpointWriter) -> bool:
        """After several bad steps in a row, go back to the last good checkpoint. Returns whether that was done.

        The data goes on from where it stands. A loss that is high but finite may be the data's: where the checkpoint
        does no better on it, the training goes on as it is. Raises RunFailed where the loss has no finite value and
        going back is no help.
        """
        writer.wait()
        name = self.mesh.processes.first_does(self._last_good_checkpoint)
        checkpoint = None if name is None else self._checkpoints / name
        if checkpoint is None:
            if verdict == "not finite":
                raise self._not_finite()
            reason = "there is no good checkpoint to go back to"
        elif verdict == "spike" and not self._does_better(checkpoint):
            reason = f"{checkpoint.name} does no better on the same data, so it is the data that has changed"
        else:
            from_step, tokens = self.step, self.tokens_seen
            self._restore(load_checkpoint(checkpoint, self._tensors(), self.mesh))
            self._returns = self._returns + 1 if self._returned_to_step == self.step else 1
            self._returned_to_step, self._rolled_back_from_step = self.step, from_step
            self.console.print(
                f"Bad steps in a row, up to step {from_step}: back to step {self.step}, and on with the data that "
                f"comes after {tokens:,} tokens.",
                highlight=False,
            )
            return True
        self.guard.forget()
        self.console.print(f"The loss stays high: {reason}. Going on.", highlight=False)
        return False

    def _last_good_checkpoint(self) -> str | None:
        """The name of the newest that a run never asked to stop has, too; none that was returned to too often.

        So a run that is stopped and goes on returns to the same one.
        """
        for checkpoint in intact_checkpoints(self._checkpoints, warn=self.console.print):
            state = read_state(checkpoint)
            if state["is_regular"] and state["guard"]["skipped_in_a_row"] == 0:
                is_used_up = (
                    state["step"] == self._returned_to_step and self._returns >= _RETURNS_TO_ONE_CHECKPOINT_AT_MOST
                )
                return None if is_used_up else checkpoint.name
        return None

    def _does_better(self, checkpoint: Path) -> bool:
        """Whether the checkpoint's model has a usual loss on the last batch."""
        weights = {name: tensor for name, tensor in self._tensors().items() if name.startswith("model.")}
        kept = {name: tensor.clone() for name, tensor in weights.items()}
        load_checkpoint(checkpoint, weights, self.mesh)
        loss = self.mesh.add_up_shares(self._forward_backward.loss(self._batch)) / self._count(self._batch)
        for name, tensor in weights.items():
            tensor.copy_(kept[name])
        return not self.guard.is_high_loss(loss.item())

    def _not_finite(self) -> RunFailed:
        again = ", also after going back to a checkpoint" if self._returns else ""
        return RunFailed(
            f"The loss or its gradient was not finite for {self.guard.skipped_in_a_row} steps in a row, up to "
            f"step {self.step}{again}. Lower lr and muon_lr, lengthen the warm-up, or set precision = "
            '"float32".'
        )

    def _evaluate(self) -> dict[str, Any]:
        """What the evaluators measure, and the size of some activations on the step's own data."""
        self.model.eval()
        sizes: dict[str, float] = {}
        with torch.no_grad(), self._forward_backward.autocast():
            evaluation: Evaluation = {name: evaluate(self.model) for name, evaluate in self.evaluators.items()}
            if not self.spread.is_pipelined:  # whose layers are not all here
                first = next(self.micro_batches.split(self._batch))
                sizes = activation_rms(self.spread.layers, lambda: self.objective.loss_sum(self.model, first))
        let_go(self.model)
        self.model.train()
        if self.mesh.tell(int(self._ends_early)):  # an evaluator may have found that it is enough
            self.end_early()
        return {"evaluation": evaluation, "activation_rms": sizes}

    def _is_time_to_save(self) -> bool:
        intervals = (self.section.checkpoint_interval_steps, self.section.milestone_interval_steps)
        return any(interval is not None and self.step % interval == 0 for interval in intervals)

    def _save(self, writer: CheckpointWriter) -> None:
        state = {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "is_regular": self._is_time_to_save(),
            "ends_early": self._ends_early,
            "guard": self.guard.state_dict(),
            "loader": self.loader.state_dict(),
        }
        # One that is saved because of a stop must not push out the one to go back to.
        is_extra = not state["is_regular"] and self.step < self.total_steps
        writer.save(self.step, self._tensors(), state, keep_one_more=is_extra)

    def _resume(self) -> None:
        name = self.mesh.processes.first_does(self._newest_checkpoint)
        if name is None:
            return
        state = load_checkpoint(self._checkpoints / name, self._tensors(), self.mesh)
        self._restore(state)
        self.loader.load_state_dict(state["loader"])
        self.console.print(f"Going on from step {self.step} of {self.total_steps}.", highlight=False)

    def _newest_checkpoint(self) -> str | None:
        """The name of the newest that is intact. Raises RunFailed where metrics.jsonl, which the result is read from,
        does not reach it: it always did when the checkpoint was made, and what to give up is not ours to choose."""
        remove_unfinished_checkpoints(self._checkpoints)
        newest = latest_checkpoint(self._checkpoints, warn=self.console.print)
        if newest is None:
            return None
        log = metrics_path(self.directory)
        n_logged = len(read_metrics(log))
        if read_state(newest)["step"] > n_logged:
            raise RunFailed(
                f"{log}: is missing or damaged after line {n_logged}, but {newest.name} goes on from a later step. "
                f"Put the file back; or remove the checkpoints after step {n_logged} from {self._checkpoints}, and "
                "the same command makes those steps again."
            )
        return newest.name

    def _restore(self, state: dict[str, Any]) -> None:
        """Everything but the tensors and the place in the data."""
        self.step, self.tokens_seen = state["step"], state["tokens_seen"]
        self.guard.load_state_dict(state["guard"])
        if state.get("ends_early", False):
            self.end_early()

    @property
    def _checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the state under their names, not copies: a checkpoint is loaded into them."""
        parameters = named_parameters(self.model)
        tensors = {f"model.{name}": parameter.detach() for name, parameter in parameters.items()}
        for name, parameter in parameters.items():
            for key, tensor in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = tensor
        return tensors
