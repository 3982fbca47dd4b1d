"""Ending a training in time: when the validation no longer gets better, and with the model that was best."""

import math
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from hornbook.errors import RunFailed
from hornbook.model.transformer import Transformer
from hornbook.run_directory import atomic_write
from hornbook.training.checkpoint import saved_steps
from hornbook.training.metrics import BITS_PER_BYTE, read_metrics
from hornbook.training.trainer import Trainer


class Patience:
    """Ends a training whose validation stays without a better value, and keeps the model of the best.

    Everything is read from `metrics.jsonl`, so a run that was killed, or went back to a checkpoint, decides as its log
    says. The weights of each validation that was the best so far are in a file of their own beside the checkpoints, and
    stay as long as the training may go back to a step at which they were the best.
    """

    def __init__(self, directory: Path, evaluations: int) -> None:
        self._directory, self._evaluations = directory, evaluations

    def watch(self, trainer: Trainer, measured: float) -> None:
        """Look at one more value, the lower the better, that `trainer` has just measured as bits per byte."""
        since_best = trainer.mesh.processes.first_does(lambda: self._validations_since_best(trainer.step, measured))
        if since_best == 0:
            weights = trainer.spread.whole_weights()
            if trainer.mesh.is_first:
                atomic_write(self._file_of(trainer.step), save(weights))
                self._forget_beaten(trainer.step)
        elif since_best >= self._evaluations and trainer.step < trainer.total_steps:
            trainer.console.print(
                f"No better validation for {self._evaluations} in a row: ending after step {trainer.step} "
                f"of {trainer.total_steps}.",
                highlight=False,
            )
            trainer.end_early()

    def restore_best(self, model: Transformer) -> None:
        """Give the model the weights of the best validation. Raises RunFailed where their file is lost or damaged."""
        validations = self._validations()
        path = self._file_of(min(validations, key=lambda step: validations[step]))
        try:
            weights = load_file(path, device=str(model.head_weight.device))
        except (OSError, SafetensorError):
            raise RunFailed(
                f"{path}: the weights of the best validation are missing or damaged. Remove the folder {path.parent}, "
                "and the same command trains anew."
            ) from None
        model.load_state_dict(weights)

    def _validations_since_best(self, step: int, measured: float) -> int:
        values = list((self._validations() | {step: measured if math.isfinite(measured) else math.inf}).values())
        return len(values) - 1 - values.index(min(values))

    def _validations(self) -> dict[int, float]:
        """The bits per byte after each step that was validated; the log leaves out what is not finite."""
        return {
            record["step"]: record["evaluation"]["validation"].get(BITS_PER_BYTE, math.inf)
            for record in read_metrics(self._directory / "metrics.jsonl")
            if "evaluation" in record
        }

    def _forget_beaten(self, step: int) -> None:
        """Remove weights that no checkpoint needs, now that those of `step` are the best.

        A checkpoint needs the best up to its own step. One that is still being written is newer than all there are.
        """
        bests: list[int] = []
        lowest = math.inf
        for validated, value in self._validations().items():
            if not bests or value < lowest:
                bests.append(validated)
                lowest = value
        bests.append(step)
        saved = saved_steps(self._folder)
        needed = {best for best in bests if best > max(saved, default=0)}
        needed |= {max((best for best in bests if best <= at), default=0) for at in saved}
        keep = {self._file_of(best) for best in needed}
        for path in self._folder.glob("best-*.safetensors"):
            if path not in keep:
                path.unlink()

    def _file_of(self, step: int) -> Path:
        return self._folder / f"best-{step:08d}.safetensors"

    @property
    def _folder(self) -> Path:
        return self._directory / "checkpoints"
