"""The training loop: the only backward pass and the only optimizer step of the project, for every stage.

A step takes one global batch. The labels of the whole batch are counted first; then each micro-batch
backpropagates its summed loss over that count. So the gradient, and with it the course of the training, does
not depend on how many rows fit in memory at once, and running out of memory costs one step's time and nothing
else.

A run that is killed at any moment and started again ends with the same weights, bit for bit. Everything that
the next step depends on is in the checkpoint (weights, optimizer, the loader's place in the data, counters)
or a function of the step's number (learning rate, random draws).

Weights, optimizer and gradients are in the model's own type, float32; bfloat16 is a type to compute in, by
autocast.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor, nn

from hornbook.batching.packing import Batch
from hornbook.errors import RunFailed
from hornbook.model.transformer import Transformer
from hornbook.objectives.objective import Objective
from hornbook.recipe import TrainingSection
from hornbook.runtime import derive_seed
from hornbook.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    remove_unfinished_checkpoints,
    save_checkpoint,
)
from hornbook.training.interruption import StopRequest
from hornbook.training.metrics import (
    Evaluation,
    MetricsLog,
    ProgressDisplay,
    Record,
    TrainingResult,
    read_metrics,
    summarize,
)
from hornbook.training.microbatch import MicroBatchSize, is_out_of_memory, recomputed
from hornbook.training.optimizers import MuonWithAdamW
from hornbook.training.schedule import learning_rate_scale

_SKIPPED_IN_A_ROW_AT_MOST = 5

Evaluator = Callable[[Transformer], dict[str, float]]


class BatchSource(Protocol):
    """Where the global batches come from. Its state must be what JSON can hold."""

    def next_batch(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Trainer:
    """Trains `model` for `total_steps` global batches, and keeps what it writes in `directory`.

    There are checkpoints/ and metrics.jsonl. Where `directory` holds checkpoints already, `train` goes on
    from the newest. The model is on `device` before the optimizer is built, and `section` says the rest. Each
    evaluator is called on the model in evaluation mode, without gradients, under the same autocast as the
    training.
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
    ) -> None:
        self.model, self.objective, self.loader, self.optimizer = model, objective, loader, optimizer
        self.section, self.directory, self.total_steps = section, directory, total_steps
        self.evaluators, self.console, self.seed = evaluators, console, seed
        self.device, self.dtype = device, dtype

        self.step = 0
        self.tokens_seen = 0
        self.skipped_in_a_row = 0
        rows = section.global_batch_tokens // (section.row_tokens or model.config.max_seq_len)
        self.micro_batches = MicroBatchSize(min(section.micro_batch_size or rows, rows))
        self._is_compiled = section.compile
        self._loss_sum = objective.loss_sum
        if section.compile:
            self._loss_sum = torch.compile(objective.loss_sum, dynamic=False)
        self._is_warm = False

    def train(self) -> TrainingResult:
        """Go on from the newest checkpoint, or begin, and train to the end.

        Raises RunFailed where the loss stays without a finite value, where a single row does not fit in
        memory, and after a checkpoint was saved because the process was asked to stop.
        """
        self._resume()
        metrics_path = self.directory / "metrics.jsonl"
        with ExitStack() as stack:
            stop = stack.enter_context(StopRequest())
            log = stack.enter_context(MetricsLog(metrics_path, self.step))
            progress = ProgressDisplay(self.console, self.directory.name, self.step, self.total_steps)
            stack.enter_context(progress)
            if self.section.recompute == "full":
                stack.enter_context(recomputed(self.model.model.layers))
            self.model.train()
            while self.step < self.total_steps:
                record = self._train_step()
                is_last = self.step == self.total_steps
                if self.evaluators and (is_last or self.step % self.section.evaluation_interval_steps == 0):
                    record["evaluation"] = self._evaluate()
                log.write(record)
                progress.show(record)
                is_stopping = stop.signal_name is not None and not is_last
                if is_last or is_stopping or self.step % self.section.checkpoint_interval_steps == 0:
                    log.sync()
                    self._save()
                if is_stopping:
                    raise RunFailed(
                        f"Stopped by {stop.signal_name} after step {self.step} of {self.total_steps}, "
                        "which is saved. Run the same command to continue."
                    )
        return summarize(read_metrics(metrics_path))

    def _train_step(self) -> Record:
        """One global batch: forward, backward, optimizer. Returns the step's line of metrics."""
        started = time.perf_counter()
        was_warm, rows_before = self._is_warm, self.micro_batches.rows
        torch.manual_seed(derive_seed(self.seed, self.directory.name, self.step))
        batch = self.loader.next_batch().to(self.device)
        count = self.objective.count(batch).clamp_min(1)
        loss, sums = self._forward_backward(batch, count)
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.section.clip_norm, foreach=True)
        # The only place where the host waits for the device: what it reads decides whether to update.
        values = torch.stack([loss, grad_norm, *(value / count for value in sums.values())]).tolist()
        is_usable = math.isfinite(values[0]) and math.isfinite(values[1])
        scale = learning_rate_scale(self.step, self.total_steps, self.section)
        if is_usable:
            self.optimizer.scale_learning_rates(scale)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

        n_tokens = batch.input_ids.numel()
        self.step += 1
        self.tokens_seen += n_tokens
        self._is_warm = True
        seconds = time.perf_counter() - started
        record: Record = {
            "step": self.step,
            "tokens": self.tokens_seen,
            "loss_nats": values[0] if is_usable else None,
            "grad_norm": values[1] if math.isfinite(values[1]) else None,
            "lr": self.section.lr * scale,
            "seconds": round(seconds, 6),
            "micro_batch_size": self.micro_batches.rows,
        }
        if was_warm and self.micro_batches.rows == rows_before:
            record["tokens_per_second"] = round(n_tokens / seconds, 1)
        record |= {name: value for name, value in zip(sums, values[2:], strict=True) if math.isfinite(value)}
        self._watch(is_usable, values[0], values[1])
        return record

    def _forward_backward(self, batch: Batch, count: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the other sums of the whole batch, with the gradients in the parameters.

        Out of memory, it begins again with half as many rows at once; where compiling fails, without it.
        """
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._accumulate(batch, count)
            except Exception as error:
                ran_out_of_memory = is_out_of_memory(error)
                if not ran_out_of_memory and not self._is_compiled:
                    raise
                problem = f"{type(error).__name__}: {error}".splitlines()[0]
            # Out of the handler, whose traceback would keep the failed step's tensors alive.
            if ran_out_of_memory:
                self.micro_batches.halve(batch.n_rows)
                self.console.print(f"Out of memory; going on with {self.micro_batches.rows} rows at once.")
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
            else:
                # An error that compiling has not caused comes again without it, and is raised then.
                self._is_compiled, self._loss_sum = False, self.objective.loss_sum
                self.console.print(f"torch.compile failed ({problem}); going on without it, more slowly.", markup=False)

    def _accumulate(self, batch: Batch, count: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss_total, totals = torch.zeros((), device=self.device), dict[str, Tensor]()
        for micro_batch in self.micro_batches.split(batch):
            with self._autocast():
                loss_sum, sums = self._loss_sum(self.model, micro_batch)
            loss = loss_sum / count
            loss.backward()
            loss_total = loss_total + loss.detach()
            for name, value in sums.items():
                totals[name] = totals.get(name, 0) + value.detach()
        return loss_total, totals

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def _watch(self, is_usable: bool, loss: float, grad_norm: float) -> None:
        """Tell of a step that was skipped. Raises RunFailed where too many were in a row."""
        self.skipped_in_a_row = 0 if is_usable else self.skipped_in_a_row + 1
        if is_usable:
            return
        self.console.print(
            f"Step {self.step} skipped: loss {loss:.3g}, norm of the gradient {grad_norm:.3g}.", markup=False
        )
        if self.skipped_in_a_row >= _SKIPPED_IN_A_ROW_AT_MOST:
            raise RunFailed(
                f"The loss or its gradient was not finite for {self.skipped_in_a_row} steps in a row, up to "
                f'step {self.step}. Lower lr and muon_lr, lengthen the warm-up, or set precision = "float32".'
            )

    def _evaluate(self) -> Evaluation:
        self.model.eval()
        with torch.no_grad(), self._autocast():
            evaluation = {name: evaluate(self.model) for name, evaluate in self.evaluators.items()}
        self.model.train()
        return evaluation

    def _save(self) -> None:
        state = {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "skipped_in_a_row": self.skipped_in_a_row,
            "micro_batch_rows": self.micro_batches.rows,
            "loader": self.loader.state_dict(),
        }
        save_checkpoint(self._checkpoints, self.step, self._tensors(), state, self.section.keep_checkpoints)

    def _resume(self) -> None:
        remove_unfinished_checkpoints(self._checkpoints)
        checkpoint = latest_checkpoint(self._checkpoints, warn=self.console.print)
        if checkpoint is None:
            return
        state = load_checkpoint(checkpoint, self._tensors())
        self.step, self.tokens_seen = state["step"], state["tokens_seen"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.micro_batches.rows = min(self.micro_batches.rows, state["micro_batch_rows"])
        self.loader.load_state_dict(state["loader"])
        self.console.print(f"Going on from step {self.step} of {self.total_steps}.", highlight=False)

    @property
    def _checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the state under their names, not copies: a checkpoint is loaded into them."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, tensor in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = tensor
        return tensors
