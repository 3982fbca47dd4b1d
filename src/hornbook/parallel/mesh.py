"""Where a process stands among the others, and what they tell each other once in a step.

The processes are a grid of four sides, pipeline x replicate x shard x tensor, the last one counting fastest: what
exchanges the most stands closest together. Those that differ in pipeline or tensor alone work on the same rows. Those
that share the tokens of a row (context) are neighbours along the side of the shards, and keep parts of the weights too.
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from hornbook.errors import UserError
from hornbook.parallel.processes import Processes
from hornbook.recipe_parallel import Cuttable, ParallelSection, layout_problems, process_problems

_PATIENCE = timedelta(minutes=2)
_SIDES = ("pipeline", "replicate", "shard", "tensor")


class Mesh:
    """This process's place. `Mesh.alone` is the place of a process that has no others; nothing is exchanged then."""

    def __init__(self, section: ParallelSection, device: torch.device, processes: Processes) -> None:
        self.section, self.device, self.processes = section, device, processes
        self.is_spread = dist.is_initialized()
        if self.is_spread:
            sides = (section.pipeline, section.replicate, section.shard * section.context, section.tensor)
            self.grid: DeviceMesh = init_device_mesh(device.type, sides, mesh_dim_names=_SIDES)
            self.context_group = _group_within(self.grid, section.context)
            # Checkpoints are written by a thread, which must not meet the training in one group.
            self.checkpoint_group = dist.new_group(backend="gloo")
            self._control_group = dist.new_group(backend="gloo")

    @classmethod
    def alone(cls, device: torch.device) -> "Mesh":
        return _Alone(device)

    @property
    def is_first(self) -> bool:
        return self.processes.is_first

    @property
    def n_data(self) -> int:
        """How many shares the rows of a step are cut into."""
        return self.section.replicate * self.section.shard

    @property
    def data_rank(self) -> int:
        """Which of the shares is this process's."""
        return self._place("replicate") * self.section.shard + self._place("shard") // self.section.context

    @property
    def context_rank(self) -> int:
        """Which stretch of its rows is this process's."""
        return self._place("shard") % self.section.context

    @property
    def pipeline_rank(self) -> int:
        return self._place("pipeline")

    @property
    def tensor_rank(self) -> int:
        return self._place("tensor")

    def _place(self, side: str) -> int:
        return self.grid.get_local_rank(side) if self.is_spread else 0

    def group(self, side: str) -> dist.ProcessGroup:
        """The processes that differ from this one in that side alone."""
        return self.grid.get_group(side)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.is_spread:
            dist.all_reduce(values)
        return values

    def add_up_shares(self, values: Tensor) -> Tensor:
        """The sum over all shares of the tokens, in place: those that work on the same ones count once."""
        if self.is_spread and self.n_data * self.section.context > 1:
            for side in ("replicate", "shard"):
                dist.all_reduce(values, group=self.group(side))
        return values

    def largest(self, value: int) -> int:
        """The largest over all processes. Raises RuntimeError where they do not all come to it in time."""
        if not self.is_spread:
            return value
        found = torch.tensor(value)
        work = dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self._control_group, async_op=True)
        work.wait(_PATIENCE)
        return int(found)

    def tell(self, value: Any) -> Any:
        """Rank 0's value, which must be what JSON can hold, in every process."""
        return self.processes.first_does(lambda: value)


def _group_within(grid: DeviceMesh, size: int) -> dist.ProcessGroup:
    """This process's group of so many neighbours along the side of the shards."""
    found = None
    lines = grid.mesh.transpose(2, 3).flatten(0, 2)  # (all other sides, shard)
    for ranks in lines.unflatten(1, (-1, size)).flatten(0, 1).tolist():
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            found = group
    assert found is not None
    return found


class _Alone(Mesh):
    def __init__(self, device: torch.device) -> None:
        self.section, self.device, self.processes = ParallelSection(shard=1), device, Processes()
        self.is_spread = False


def open_mesh(section: ParallelSection, device: torch.device, processes: Processes, training: Cuttable) -> Mesh:
    """The place of this process in the layout of the section.

    Raises UserError with one line for everything that does not fit: the processes that were started, the model, the
    rows of a step.
    """
    resolved = section.resolved(processes.world_size)
    problems = [*process_problems(section, processes.world_size), *layout_problems(resolved, training)]
    if problems:
        raise UserError("\n".join(f"{names[0]}: {what}" for names, what in problems))
    return Mesh(resolved, device, processes) if dist.is_initialized() else Mesh.alone(device)
