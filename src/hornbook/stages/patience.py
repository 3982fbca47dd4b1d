"""Ending a training in time: when the validation no longer gets better, and with the model that was best."""

from pathlib import Path

from safetensors.torch import load_file, save

from hornbook.model.transformer import Transformer
from hornbook.run_directory import atomic_write
from hornbook.training.metrics import read_metrics
from hornbook.training.trainer import Trainer

_BEST_FILE = "checkpoints/best.safetensors"
"""Kept like checkpoints: a stage that is begun again, to draw its curve or to save its model, needs it once more."""


class Patience:
    """Ends a training whose validation stays without a better value, and keeps the model of the best.

    Everything is read from `metrics.jsonl`, so a run that was killed decides as one that was not.
    """

    def __init__(self, directory: Path, evaluations: int) -> None:
        self._directory, self._evaluations = directory, evaluations

    def watch(self, trainer: Trainer, measured: float) -> None:
        """Look at one more value, the lower the better, that `trainer` has just measured as bits per byte."""
        since_best = trainer.mesh.processes.first_does(lambda: self._validations_since_best(measured))
        if since_best == 0:
            weights = trainer.spread.whole_weights()
            if trainer.mesh.is_first:
                atomic_write(self._directory / _BEST_FILE, save(weights))
        elif since_best >= self._evaluations and trainer.step < trainer.total_steps:
            trainer.console.print(
                f"No better validation for {self._evaluations} in a row: ending after step {trainer.step} "
                f"of {trainer.total_steps}.",
                highlight=False,
            )
            trainer.end_early()

    def _validations_since_best(self, measured: float) -> int:
        records = read_metrics(self._directory / "metrics.jsonl")
        evaluations = [record["evaluation"] for record in records if "evaluation" in record]
        values = [evaluation["validation"]["bits_per_byte"] for evaluation in evaluations] + [measured]
        return len(values) - 1 - values.index(min(values))

    def restore_best(self, model: Transformer) -> None:
        """Give the model the weights of the best validation."""
        path = self._directory / _BEST_FILE
        model.load_state_dict(load_file(path, device=str(model.head_weight.device)))
