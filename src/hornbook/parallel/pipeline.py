"""Pipeline parallelism: each process has some of the layers, and micro-batches flow through them.

While a stage works on one micro-batch, the stage before works on the next. At the beginning and the end of a step some
stages wait: of p stages and m micro-batches each waits (p-1) / (m+p-1) of the time (Huang et al. 2019, GPipe, arXiv
1811.06965; Narayanan et al. 2021, arXiv 2104.04473, section 2.2). Torch's schedules do the work and the sending; each
process reads the whole rows of its share from its own loader, so that only activations travel.

The last stage computes the objective itself: it gets the batch as any model does, and its own forward pass goes on from
what it has received.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.distributed.tensor import DTensor, Shard

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.errors import UserError
from hornbook.model.config import ModelConfig
from hornbook.model.transformer import Transformer
from hornbook.parallel.mesh import Mesh
from hornbook.parallel.stages import Received

_SCHEDULES: dict[str, Any] = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
}
_MICRO_BATCHES_FOR_EACH_PROCESS = 4
"""So many at least, where there are rows enough: then the processes wait for less than a fifth of the time."""

LossSum = Callable[[Any, Batch], tuple[Tensor, dict[str, Tensor]]]


class StagePart(nn.Module):
    """One stage, as torch's schedules want it: from what came before, and the number of a micro-batch, to what follows.

    The last one gives the loss where `loss_sum` is set, as (1,), and the vectors where it is not.
    """

    def __init__(self, transformer: Transformer, number: int, is_last: bool) -> None:
        super().__init__()
        self.transformer, self.number, self.is_last = transformer, number, is_last
        self.micro_batches: list[Batch] = []
        self.loss_sum: LossSum | None = None
        self.count = torch.ones(())
        self.sums: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        batch = self.micro_batches[int(index)]
        embedding = self.transformer.model.embed_tokens
        if isinstance(embedding, Received):
            embedding.hidden = x
        if not self.is_last or self.loss_sum is None:
            return self.transformer(batch.input_ids, batch.position_ids, batch.document_ids)
        loss_sum, sums = self.loss_sum(self.transformer, batch)
        self.sums.append({name: value.detach() for name, value in sums.items()})
        return (loss_sum / self.count).reshape(1)


class PipelinedModel(nn.Module):
    """The stages that this process has, and the way of a batch through all of them.

    As a model it can be called for its vectors, which then every process gets, without gradients: all processes of the
    pipeline have to call it with the same batch. `forward_backward` is how it is trained.
    """

    def __init__(self, config: ModelConfig, parts: list[StagePart], mesh: Mesh, dtype: torch.dtype) -> None:
        super().__init__()
        self.config, self.parts, self._mesh, self._dtype = config, nn.ModuleList(parts), mesh, dtype
        self._loss_dtype = torch.promote_types(dtype, torch.float32)
        self._group = mesh.group("pipeline")
        self._ranks = dist.get_process_group_ranks(self._group)
        self._schedule: tuple[tuple[int, ...], Any] | None = None
        self._gathered_head: Tensor | None = None
        self._tied_group = _group_of_ends(mesh) if config.tie_embeddings else None

    def forward_backward(self, batch: Batch, pieces: int, loss_sum: LossSum, count: Tensor) -> tuple[Tensor, Any]:
        """The loss of the batch, and the objective's sums, where the last stage is; 0 and nothing elsewhere.

        Leaves the gradients in the parameters. The batch is cut into at least `pieces` micro-batches of one size.
        """
        n_pieces = self._pieces(batch.n_rows, pieces)
        size = batch.n_rows // n_pieces
        micro_batches = [batch.rows(start, start + size) for start in range(0, batch.n_rows, size)]
        for part in self._stages():
            part.micro_batches, part.loss_sum, part.count, part.sums = micro_batches, loss_sum, count, []
        index = torch.arange(n_pieces, device=batch.input_ids.device)
        begins = (torch.zeros(n_pieces, 1, device=index.device),) if self._has_first else ()
        losses: list[Tensor] = []
        schedule = self._schedule_for(micro_batches[0].input_ids, n_pieces)
        target = index if self._has_last else None
        schedule.step(*begins, index=index, target=target, losses=losses, return_outputs=False)
        self._add_up_tied()
        totals: dict[str, Tensor] = {}
        for sums in (sums for part in self._stages() for sums in part.sums):
            for name, value in sums.items():
                totals[name] = totals.get(name, 0) + value
        nothing = torch.zeros((), dtype=self._loss_dtype, device=index.device)
        return torch.stack([nothing, *(loss.detach() for loss in losses)]).sum(), totals

    def forward(
        self,
        input_ids_BT: Tensor,
        position_ids_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: None = None,
    ) -> Tensor:
        """The vectors (B,T,D) after the final norm, as Transformer's, from stage to stage without gradients."""
        rows, tokens = input_ids_BT.shape
        x = torch.zeros(1, 1, device=input_ids_BT.device)
        parts = {part.number: part for part in self._stages()}
        batch = Batch(input_ids_BT, torch.full_like(input_ids_BT, IGNORE_INDEX), position_ids_BT, document_ids_BT)  # type: ignore[arg-type]
        n_stages = self._mesh.section.stages
        for number in range(n_stages):
            is_last = number == n_stages - 1
            if number in parts:
                part = parts[number]
                part.micro_batches, part.loss_sum = [batch], None
                with torch.no_grad():
                    x = part(x, torch.zeros((), dtype=torch.int64)).contiguous()
            else:
                here = tokens if is_last else tokens // self._mesh.section.tensor
                x = torch.empty(rows, here, self.config.d_model, dtype=self._dtype, device=x.device)
            dist.broadcast(x, self._ranks[number % len(self._ranks)], group=self._group)
        self._gathered_head = self._gather_head()
        return x

    @property
    def head_weight(self) -> Tensor | None:
        """The head after a forward pass; before one, this process's own, or None where it has none."""
        return self._own_head() if self._gathered_head is None else self._gathered_head

    def train(self, mode: bool = True) -> "PipelinedModel":
        self._gathered_head = None
        super().train(mode)
        return self

    def tied_copies(self) -> list[nn.Parameter]:
        """The one matrix that two stages hold, if this process has it."""
        if self._tied_group is None:
            return []
        weights = [part.transformer.model.embed_tokens.weight for part in self._stages()]
        return [weight for weight in weights if isinstance(weight, nn.Parameter)]

    def _stages(self) -> Iterator[StagePart]:
        for part in self.parts:
            assert isinstance(part, StagePart)
            yield part

    @property
    def _has_first(self) -> bool:
        return self._mesh.pipeline_rank == 0

    @property
    def _has_last(self) -> bool:
        return self._mesh.pipeline_rank == self._mesh.section.pipeline - 1

    def _own_head(self) -> Tensor | None:
        return next((part.transformer.head_weight for part in self._stages() if part.is_last), None)

    def _gather_head(self) -> Tensor:
        """The last stage's head, as it is gathered after the forward pass; along `tensor` it stays cut."""
        own = self._own_head()
        n_tensor = self._mesh.section.tensor
        if own is None:
            shape = (self.config.vocab_size // n_tensor, self.config.d_model)
            here = torch.empty(shape, dtype=self._dtype, device=self._mesh.device)
        else:
            here = (own.to_local() if isinstance(own, DTensor) else own).detach()
        dist.broadcast(here, self._ranks[-1], group=self._group)
        if n_tensor == 1:
            return here
        return DTensor.from_local(here, self._mesh.grid["tensor"], [Shard(0)], run_check=False)

    def _pieces(self, n_rows: int, at_least: int) -> int:
        n_processes = self._mesh.section.pipeline
        wanted = max(at_least, min(n_rows, _MICRO_BATCHES_FOR_EACH_PROCESS * n_processes))
        for pieces in range(wanted, n_rows + 1):
            # Interleaved, whole rounds are made.
            fits = self._mesh.section.schedule != "interleaved" or pieces % max(1, pieces // n_processes) == 0
            if n_rows % pieces == 0 and fits:
                return pieces
        raise UserError(
            f"parallel.schedule: {n_rows} rows in {wanted} micro-batches or more cannot be interleaved over "
            f"{n_processes} processes. Make the rows of a step a multiple of {n_processes}, or take 1f1b."
        )

    def _schedule_for(self, input_ids_BT: Tensor, n_pieces: int) -> Any:
        shape = (n_pieces, *input_ids_BT.shape)
        if self._schedule is None or self._schedule[0] != shape:
            self._schedule = shape, self._make_schedule(shape)
        return self._schedule[1]

    def _make_schedule(self, shape: tuple[int, ...]) -> Any:
        n_pieces, rows, tokens = shape
        section, device = self._mesh.section, self._mesh.device
        hidden = torch.empty(
            rows, tokens // section.tensor, self.config.d_model, dtype=self._dtype, device=device, requires_grad=True
        )
        loss = torch.empty(1, dtype=self._loss_dtype, device=device, requires_grad=True)
        stages = [
            PipelineStage(
                part,
                part.number,
                section.stages,
                device,
                input_args=torch.zeros(1, 1, device=device) if part.number == 0 else hidden,
                output_args=loss if part.is_last else hidden,
                group=self._group,
            )
            for part in self._stages()
        ]
        is_interleaved = section.schedule == "interleaved"
        return _SCHEDULES[section.schedule](
            stages if is_interleaved else stages[0],
            n_microbatches=n_pieces,
            loss_fn=lambda output, target: output.sum(),
            scale_grads=False,
        )

    def _add_up_tied(self) -> None:
        """What the embedding learned in the first stage and as a head in the last, together, in both."""
        for weight in self.tied_copies():
            if weight.grad is not None:
                gradient = weight.grad.to_local() if isinstance(weight.grad, DTensor) else weight.grad
                dist.all_reduce(gradient, group=self._tied_group)


def _group_of_ends(mesh: Mesh) -> dist.ProcessGroup | None:
    """The first and the last process of this pipeline, where embedding and head are one matrix."""
    found = None
    ranks = mesh.grid.mesh.flatten(1)  # (pipeline, all that has the same rows and the same part of each layer)
    for first, last in zip(ranks[0].tolist(), ranks[-1].tolist(), strict=True):
        group = dist.new_group([first, last])
        if dist.get_rank() in (first, last):
            found = group
    return found
