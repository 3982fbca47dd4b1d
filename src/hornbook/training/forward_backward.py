"""The gradient of a batch, in the only backward passes of the project: as many micro-batches as it takes.

Each micro-batch backpropagates its summed loss over the count of the whole batch. So the gradient is the same however
the batch was cut, and running out of memory costs the time of one step and nothing else.
"""

from contextlib import nullcontext

import torch
from rich.console import Console
from torch import Tensor

from hornbook.batching.packing import Batch
from hornbook.errors import RunFailed
from hornbook.objectives.objective import Objective
from hornbook.parallel.compiled import CompiledLayers
from hornbook.parallel.data import announce_micro_batch, let_go
from hornbook.parallel.parallelize import SpreadModel
from hornbook.parallel.pipeline import PipelinedModel
from hornbook.training.microbatch import MicroBatchSize, is_out_of_memory

_FINE, _COMPILING_FAILED, _OUT_OF_MEMORY = 0, 1, 2


class ForwardBackward:
    """Called with a batch and its count, leaves the gradients in the parameters; returns the loss and other sums.

    Both are of this process's share of the rows. Out of memory in any process, all of them begin the batch again with
    half as many rows at once; where compiling fails, without it.
    """

    def __init__(
        self,
        spread: SpreadModel,
        objective: Objective,
        micro_batches: MicroBatchSize,
        console: Console,
        dtype: torch.dtype,
        compiles: bool,
    ) -> None:
        self._spread, self._model, self._objective = spread, spread.model, objective
        self._micro_batches, self._console, self._dtype = micro_batches, console, dtype
        self._compiled: CompiledLayers | None = None
        self._running = objective
        if compiles:
            self._compile()

    def __call__(self, batch: Batch, count: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Raises RunFailed where a single row does not fit in memory."""
        while True:
            self._model.zero_grad(set_to_none=True)
            trouble, problem, result = _FINE, "", None
            try:
                with nullcontext() if self._compiled is None else self._compiled.attached():
                    result = self._accumulate(batch, count)
            except Exception as error:
                if not is_out_of_memory(error) and self._compiled is None:
                    raise
                trouble = _OUT_OF_MEMORY if is_out_of_memory(error) else _COMPILING_FAILED
                problem = f"{type(error).__name__}: {error}".splitlines()[0]
            # Out of the handler, whose traceback would keep the failed step's tensors alive.
            trouble = self._agree(trouble, batch)
            if trouble == _FINE and result is not None:
                return result
            result = None
            let_go(self._model)
            if trouble == _OUT_OF_MEMORY:
                self._shrink(batch)
            else:
                # An error that compiling has not caused comes again without it, and is raised then.
                self._compiled, self._running = None, self._objective
                self._console.print(
                    f"torch.compile failed ({problem}); going on without it, more slowly.", markup=False
                )

    def _compile(self) -> None:
        """Have everything compiled anew when it is next used."""
        self._compiled = CompiledLayers(self._model, self._spread.mesh.device, self._dtype)
        # Processes that share the vocabulary exchange sums in the middle of the cross entropy.
        is_whole_head = self._spread.mesh.section.tensor == 1
        self._running = self._objective.compiled() if is_whole_head else self._objective

    def loss(self, batch: Batch) -> Tensor:
        """The summed loss of this process's share, without gradients."""
        with torch.no_grad(), self.autocast():
            losses = [self._objective.loss_sum(self._model, part)[0] for part in self._micro_batches.split(batch)]
        let_go(self._model)
        return torch.stack(losses).sum()

    def autocast(self) -> torch.autocast:
        """The type to compute in."""
        return torch.autocast(self._spread.mesh.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16)

    def _accumulate(self, batch: Batch, count: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if isinstance(self._model, PipelinedModel):
            with self.autocast():
                pieces = -(-batch.n_rows // self._micro_batches.rows)
                return self._model.forward_backward(batch, pieces, self._running.loss_sum, count)
        loss_total, totals = torch.zeros((), device=batch.input_ids.device), dict[str, Tensor]()
        parts = list(self._micro_batches.split(batch))
        for number, micro_batch in enumerate(parts, start=1):
            announce_micro_batch(self._model, is_last=number == len(parts))
            with self.autocast():
                loss_sum, sums = self._running.loss_sum(self._model, micro_batch)
            loss = loss_sum / count
            loss.backward()
            loss_total = loss_total + loss.detach()
            for name, value in sums.items():
                totals[name] = totals.get(name, 0) + value.detach()
        return loss_total, totals

    def _agree(self, trouble: int, batch: Batch) -> int:
        """The worst that happened to any process; raises RunFailed where the others cannot be asked any more.

        Most often all of them run out of memory at one place. One that does so alone leaves the others in the middle
        of an exchange that it does not come to.
        """
        try:
            return self._spread.mesh.largest(trouble)
        except RuntimeError as error:
            if trouble != _OUT_OF_MEMORY:
                raise
            self._micro_batches.halve(batch.n_rows)
            raise self._begin_again() from error

    def _begin_again(self) -> RunFailed:
        return RunFailed(
            f"Rank {self._spread.mesh.processes.rank} ran out of memory where it could not be undone. The same command "
            f"goes on from the last checkpoint with {self._micro_batches.rows} rows at once."
        )

    def _shrink(self, batch: Batch) -> None:
        self._micro_batches.halve(batch.n_rows)
        if self._spread.is_pipelined:
            # What is on its way between the stages cannot be called back.
            raise self._begin_again()
        self._console.print(f"Out of memory; going on with {self._micro_batches.rows} rows at once.")
        if self._compiled is not None:
            self._compile()  # for the new number of rows: the compiler keeps few versions at a time
        if self._spread.mesh.device.type == "cuda":
            torch.cuda.empty_cache()
