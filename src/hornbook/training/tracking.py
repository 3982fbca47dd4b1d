"""The figures of each step for programs that draw them: TensorBoard, Trackio, Weights & Biases.

`metrics.jsonl` is the record; these are copies of it. Each needs a package of its own, and none is imported before a
recipe asks for it.
"""

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from hornbook.errors import UserError
from hornbook.training.metrics import Record

_PACKAGES = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio", "wandb": "wandb"}
_PROJECT = "hornbook"


class Tracker(Protocol):
    """Somewhere to send figures."""

    def log(self, step: int, figures: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """All trackers that a recipe names, as one; a context that closes them.

    directory: the stage's folder, `runs/NAME/STAGE`; step: the step that is made already. Raises UserError where a
    package is not installed.
    """

    def __init__(self, names: Sequence[str], directory: Path, step: int) -> None:
        modules = {name: _load(name) for name in dict.fromkeys(names)}
        self._trackers = [
            _TensorBoard(module, directory / "tensorboard", step)
            if name == "tensorboard"
            else _Online(name, module, directory)
            for name, module in modules.items()
        ]

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_: object) -> None:
        for tracker in self._trackers:
            tracker.close()

    def log(self, record: Record) -> None:
        """Send the record of one step."""
        if self._trackers:
            figures = figures_of(record)
            for tracker in self._trackers:
                tracker.log(record["step"], figures)


def figures_of(record: Record, prefix: str = "") -> dict[str, float]:
    """All numbers of a record but its step, inner ones as "evaluation/validation/bits_per_byte"."""
    figures: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            figures |= figures_of(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and prefix + name != "step":
            figures[prefix + name] = value
    return figures


class _TensorBoard:
    def __init__(self, module: ModuleType, directory: Path, step: int) -> None:
        # What was drawn of steps that are made again is taken back.
        self._writer = module.SummaryWriter(str(directory), purge_step=step + 1)

    def log(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Online:
    """Weights & Biases, and Trackio, which has the same functions. A run that goes on is the same run there."""

    def __init__(self, name: str, module: ModuleType, directory: Path) -> None:
        self._module = module
        run = f"{directory.parent.name}-{directory.name}"
        options: dict[str, Any] = {"project": _PROJECT, "name": run, "resume": "allow"}
        if name == "wandb":
            place = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:8]
            options |= {"id": f"{run}-{place}", "dir": str(directory)}
        module.init(**options)

    def log(self, step: int, figures: dict[str, float]) -> None:
        self._module.log(figures, step=step)

    def close(self) -> None:
        self._module.finish()


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(_PACKAGES[name])
    except ImportError:
        extra = "'hornbook[tracking]'" if name == "tensorboard" else name
        raise UserError(
            f"tracking: {name} is not installed. Install it (pip install {extra}), or take it out of the recipe."
        ) from None
