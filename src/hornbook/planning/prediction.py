"""What is predicted of a training just before it begins, and what is measured of it when it is over.

The two have the same names, so that they can be compared (score.py).
"""

import ctypes
import gc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hornbook.planning.flops import flops_per_token, optimizer_flops_per_step, parameters_by_part
from hornbook.planning.hardware import Device, Kind
from hornbook.planning.layout import Layout
from hornbook.planning.memory import ONE_DEVICE, training_memory
from hornbook.planning.probe import counted_flops_per_token, measured_utilisation
from hornbook.recipe_training import ReinforceSection, TrainingSection

if TYPE_CHECKING:
    import torch

    from hornbook.model.config import ModelConfig
    from hornbook.model.transformer import Transformer
    from hornbook.training.metrics import TrainingResult

_UTILISATION_OF_ACCELERATORS = 0.4


def predicted_figures(
    config: "ModelConfig",
    torch_device: "torch.device",
    section: TrainingSection,
    dtype: "torch.dtype",
    rows: int,
    peak_flops_per_second: float,
    total_steps: int,
    loss: float | None,
    layout: Layout = ONE_DEVICE,
) -> dict[str, float | None]:
    """The plan of one training, `rows` computed at once, on devices whose measured peak rate is that in all.

    The share of the peak is measured with a few steps of a like model, on a CPU; on an accelerator, whose memory the
    model may fill, the usual one is assumed. No time is predicted of reinforcement: most of it goes by while the model
    writes answers, and nobody knows beforehand how long they will be.
    """
    import torch

    kind = kind_of(torch_device)
    section = section.model_copy(update={"precision": "float32" if dtype == torch.float32 else "bfloat16"})
    row_tokens = section.row_tokens or config.max_seq_len
    device = Device("this one", peak_flops_per_second, None, kind)
    utilisation = None
    if not isinstance(section, ReinforceSection):
        utilisation = measured_utilisation(config, section, device) if kind == "cpu" else _UTILISATION_OF_ACCELERATORS
    flops = _flops(config, section, total_steps, flops_per_token(config, row_tokens, section.recompute).total)
    speed = None
    if utilisation is not None:
        per_token = flops_per_token(config, row_tokens).model
        speed = peak_flops_per_second * utilisation / per_token
    return {
        "parameters": sum(parameters_by_part(config).values()),
        "flops": flops,
        "peak_memory_bytes": training_memory(config, section, rows, kind, layout).total,
        "tokens_per_second": speed,
        "seconds": None if speed is None else total_steps * section.global_batch_tokens / speed,
        "loss_nats": loss,
    }


def measured_figures(
    model: "Transformer",
    section: TrainingSection,
    result: "TrainingResult",
    peak_memory_bytes: int | None,
    loss: float | None,
) -> dict[str, float | None]:
    """The same figures of the training that is over. Operations are torch's own count on one row, times all rows."""
    from hornbook.model.transformer import Transformer

    is_whole = type(model) is Transformer and not model.head_weight.is_meta
    flops = None
    if is_whole:
        per_token = counted_flops_per_token(model, section.row_tokens or model.config.max_seq_len, section)
        flops = _flops(model.config, section, result.steps, per_token)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops": flops,
        "peak_memory_bytes": peak_memory_bytes,
        "tokens_per_second": result.tokens_per_second,
        "seconds": result.training_seconds,
        "loss_nats": loss,
    }


class PeakMemory:
    """The memory that a training took at its peak, from here on: on CUDA what was allocated, on a CPU how far this
    process's resident memory grew. `there_already`: bytes of the model, which were allocated before."""

    def __init__(self, device: "torch.device", there_already: int) -> None:
        import torch

        self._device, self._there_already = device, there_already
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            _return_freed_memory()
            # The highest so far is forgotten. A system that cannot do that gives the highest of the whole process.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
            self._before = _status_bytes("VmRSS:")

    def peak_bytes(self) -> int | None:
        """None where it is not known."""
        import torch

        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        highest = _status_bytes("VmHWM:") if self._device.type == "cpu" else None
        if highest is None or self._before is None:
            return None
        return highest - self._before + self._there_already


def kind_of(device: "torch.device") -> Kind:
    """What a plan calls the device."""
    return "cpu" if device.type == "cpu" else "accelerator"


def _flops(config: "ModelConfig", section: TrainingSection, steps: int, per_token: float) -> float:
    updates = steps * optimizer_flops_per_step(config, section.optimizer)
    return steps * section.global_batch_tokens * per_token + updates


def _return_freed_memory() -> None:
    """What stages before have freed goes back to the system: else the next one would fill it without growing."""
    gc.collect()
    with suppress(AttributeError, OSError):  # the GNU C library's; others have no such call
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(name: str) -> int | None:
    path = Path("/proc/self/status")
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None
