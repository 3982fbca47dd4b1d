"""Watching a training for steps that would harm it: losses without a value, and spikes.

A step is not made where its loss or its gradient has no finite value, or where both lie far above those of the steps
before: one such update can undo thousands (OLMo 2, arXiv 2501.00656, section 3, skips by the same rule, and PaLM,
arXiv 2204.02311, section 5.1, went back about 100 steps and left out 200 to 500 batches). What the trainer does after
several of them in a row is told in `Trainer._recover`.

Whether a step is good depends on the losses and gradients alone, and these are part of a checkpoint: a run that is
killed and goes on skips the same steps.
"""

import math
import statistics
from typing import Any, Literal

Verdict = Literal["good", "spike", "not finite"]

SKIPPED_IN_A_ROW_AT_MOST = 5
_WINDOW_STEPS = 128
_STEPS_BEFORE_JUDGING = 32
_STANDARD_DEVIATIONS = 6.0
# Losses can be all but equal, as on a batch that is repeated; the next digit is no spike then.
_SMALLEST_DEVIATION = 0.01


class SpikeGuard:
    """Judges each step by the loss and the norm of its gradient, and counts those not to be made.

    `skipped_in_a_row` is the number of bad steps since the last good one. With `judges_spikes` off, only losses and
    gradients without a finite value are bad.
    """

    def __init__(self, judges_spikes: bool) -> None:
        self._judges_spikes = judges_spikes
        self._losses: list[float] = []
        self._norms: list[float] = []
        self.skipped_in_a_row = 0

    def judge(self, loss: float, grad_norm: float) -> Verdict:
        """What a step is, before it is made. A good one becomes part of what the next are judged by."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            verdict: Verdict = "not finite"
        elif self._judges_spikes and self.is_high_loss(loss) and _lies_above(grad_norm, self._norms):
            verdict = "spike"
        else:
            verdict = "good"
            self._losses = [*self._losses, loss][-_WINDOW_STEPS:]
            self._norms = [*self._norms, grad_norm][-_WINDOW_STEPS:]
        self.skipped_in_a_row = 0 if verdict == "good" else self.skipped_in_a_row + 1
        return verdict

    def is_high_loss(self, loss: float) -> bool:
        """Whether a loss lies far above those of the last good steps, or has no value."""
        return not math.isfinite(loss) or _lies_above(loss, self._losses)

    @property
    def has_seen_enough(self) -> bool:
        """Whether so many steps in a row were bad that skipping them is no help."""
        return self.skipped_in_a_row >= SKIPPED_IN_A_ROW_AT_MOST

    @property
    def usual(self) -> str:
        """The loss and the norm of the last good steps, in words."""
        if not self._losses:
            return "no good step yet"
        return f"usual: {statistics.fmean(self._losses):.3g} and {statistics.fmean(self._norms):.3g}"

    def forget(self) -> None:
        """Judge the next steps by each other alone."""
        self._losses, self._norms, self.skipped_in_a_row = [], [], 0

    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {"losses": self._losses, "norms": self._norms, "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Judge as the guard did whose state this is."""
        self._losses, self._norms = list(state["losses"]), list(state["norms"])
        self.skipped_in_a_row = state["skipped_in_a_row"]


def _lies_above(value: float, window: list[float]) -> bool:
    if len(window) < _STEPS_BEFORE_JUDGING:
        return False
    mean = statistics.fmean(window)
    deviation = max(statistics.pstdev(window, mean), _SMALLEST_DEVIATION * abs(mean))
    return value > mean + _STANDARD_DEVIATIONS * deviation
