"""Checks of a training before it begins: a minute now instead of a night lost.

Each looks at the real model on real batches, begins from the same fresh weights, and says in one sentence what it
found and, where that is not right, what to do. docs/TRAINING.md explains them one by one, under their names.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.model.transformer import Transformer
from hornbook.objectives.objective import Objective
from hornbook.recipe_training import TrainingSection
from hornbook.training.leaks import dependence
from hornbook.training.optimizers import build_optimizer

_LESSON_TOKENS = 256
_OVERFIT_STEPS, _RANGE_STEPS, _RATIO_STEPS, _FEWEST_STEPS = 40, 24, 4, 8
_WARMUP_STEPS = 4
_LOWEST_SCALE, _HIGHEST_SCALE = 1 / 32, 32.0
_BLOWN_UP_NATS = 0.5
_OVERFIT_SHARE = 0.5
_SANE_UPDATES = (1e-5, 0.3)
_BELOW_LN_V, _ABOVE_LN_V = 0.5, 1.0


@dataclass(frozen=True)
class Check:
    """What one check found. passed: None where it could not be made; figures: numbers with units in their names."""

    name: str
    passed: bool | None
    sentence: str
    figures: Mapping[str, float]


class Preflight:
    """The checks of one model and its training section.

    batches: some global batches, as the training will see them. is_new: the weights are random ones. seconds: what the
    checks that train may take together, about; fewer steps are made where a step takes long, and none where too few
    fit. The model has its fresh weights again after each check.
    """

    def __init__(
        self,
        model: Transformer,
        objective: Objective,
        batches: Sequence[Batch],
        section: TrainingSection,
        dtype: torch.dtype,
        is_new: bool = True,
        seconds: float = 25.0,
    ) -> None:
        self._model, self._objective, self._batches, self._section = model, objective, batches, section
        self._dtype, self._is_new, self._seconds = dtype, is_new, seconds
        self._device = model.head_weight.device
        self._step_seconds = math.inf  # the fastest so far: on a busy machine a single one says little
        self._fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self._lessons = [_corner(batch).to(self._device) for batch in batches]

    def run(self) -> Iterator[Check]:
        """All checks, the quick ones first."""
        checks: tuple[Callable[[], Check], ...] = (
            self.data,
            self.first_loss,
            self.no_future_leaks,
            self.gradients,
            self.update_ratio,
            self.overfit,
            self.learning_rate_range,
        )
        for check in checks:
            yield check()
            self._begin_again()

    def data(self) -> Check:
        """No row without a label, and none of one token alone."""
        labels = torch.cat([batch.labels for batch in self._batches])
        ids = torch.cat([batch.input_ids for batch in self._batches])
        empty = int((labels == IGNORE_INDEX).all(dim=1).sum())
        constant = int((ids == ids[:, :1]).all(dim=1).sum())
        unlabelled = float((labels == IGNORE_INDEX).double().mean())
        rows = f"of {len(ids):,} rows, {empty} have nothing to learn and {constant} hold one token alone"
        advice = (
            "" if empty + constant == 0 else ". Look at them with `hornbook show RUN --tokens`, and filter them out"
        )
        figures = {"rows": len(ids), "empty_rows": empty, "constant_rows": constant, "unlabelled_fraction": unlabelled}
        sentence = f"{rows}; {unlabelled:.1%} of all places have no label{advice}."
        return Check("data", empty + constant == 0, sentence, figures)

    def first_loss(self) -> Check:
        """A model that knows nothing finds every token as likely as any other: ln V nats."""
        expected = math.log(self._model.config.vocab_size)
        loss = self._mean_loss(self._lessons)
        figures = {"loss_nats": loss, "ln_vocab_size_nats": expected}
        if not self._is_new:
            passed = loss < expected
            advice = "" if passed else ". The weights or the tokenizer are not those that belong together"
            sentence = f"the model in init_from begins at {loss:.2f} nats, and one that knows nothing at {expected:.2f}"
            return Check("first loss", passed, sentence + advice + ".", figures)
        passed = expected - _BELOW_LN_V <= loss <= expected + _ABOVE_LN_V
        advice = "" if passed else (
            ". Above, the weights begin too large; below, the labels can be seen in the input"
        )  # fmt: skip
        sentence = f"{loss:.2f} nats, where guessing among all tokens gives ln V = {expected:.2f}{advice}."
        return Check("first loss", passed, sentence, figures)

    def no_future_leaks(self) -> Check:
        """No score depends on tokens after its own, nor on those of another document."""
        lesson = max(self._lessons, key=lambda batch: int(batch.document_ids.max()))
        row = int(lesson.document_ids.amax(dim=1).argmax())
        one_row = lesson.rows(row, row + 1)
        documents_T = one_row.document_ids[0]
        chosen = documents_T == min(1, int(documents_T.max()))
        places = chosen.nonzero().flatten()
        place = int(places[len(places) // 2])
        with self._autocast():  # the attention that trains is what is asked
            size_T = dependence(self._model, one_row, place)
        after, other = float(size_T[place + 1 :].sum()), float(size_T[~chosen].sum())
        own = float(size_T[place])
        passed = after == 0 and other == 0 and own > 0
        advice = "" if passed else ". The attention mask is wrong: whatever is learned so is of no use"
        sentence = (
            f"the scores at place {place} depend on their own token ({own:.2g}), and by {after:.2g} on later ones and "
            f"{other:.2g} on other documents{advice}."
        )
        figures = {"own": own, "later": after, "other_documents": other}
        return Check("no future leaks", passed, sentence, figures)

    def gradients(self) -> Check:
        """Every parameter is part of the sum."""
        self._backward(self._lessons[0])
        named = [
            (name, parameter.grad) for name, parameter in self._model.named_parameters() if parameter.requires_grad
        ]
        without = [name for name, grad in named if grad is None or not bool(grad.isfinite().all() & grad.any())]
        listed = ", ".join(without[:3]) + (" and more" if len(without) > 3 else "")
        advice = "" if not without else f". Without, or not finite: {listed}. They cannot be learned"
        sentence = f"{len(named) - len(without)} of {len(named)} parameters get one{advice}."
        figures = {"parameters": len(named), "without": len(without)}
        return Check("gradients", not without, sentence, figures)

    def update_ratio(self) -> Check:
        """How far one step moves a matrix, over its own size, at the peak of the learning rate."""
        before: dict[str, Tensor] = {}
        losses = self._train([1.0] * _RATIO_STEPS, self._lessons, watch_last=before)
        if losses is not None and not math.isfinite(losses[-1]):
            return self._not_finite("update ratio", losses)
        if losses is None or not before:
            return self._too_slow("update ratio")
        ratios = {
            name: float((parameter.detach() - before[name]).norm() / before[name].norm().clamp_min(1e-12))
            for name, parameter in self._model.named_parameters()
            if parameter.ndim == 2
        }
        middle, largest = statistics.median(ratios.values()), max(ratios, key=lambda name: ratios[name])
        low, high = _SANE_UPDATES
        passed = low <= middle and ratios[largest] <= high
        advice = "" if passed else (
            f". Between {low:g} and {high:g} is usual: "
            + ("raise" if middle < low else "lower")
            + " lr (embeddings and head) or muon_lr (the layers' matrices)"
        )  # fmt: skip
        sentence = (
            f"a step at the full learning rate moves a matrix by {middle:.2g} of its size, and {largest} most, by "
            f"{ratios[largest]:.2g}{advice}."
        )
        figures = {"median": middle, "largest": ratios[largest], "smallest": min(ratios.values())}
        return Check("update ratio", passed, sentence, figures)

    def overfit(self) -> Check:
        """One batch, again and again: whatever cannot be learned by heart cannot be learned."""
        losses = self._train([1.0] * _OVERFIT_STEPS, self._lessons[:1], share=0.6)
        if losses is None:
            return self._too_slow("overfit")
        first, last = losses[0], losses[-1]
        passed = last < _OVERFIT_SHARE * first
        advice = (
            "" if passed else ". Lower or raise the learning rates, and look whether labels and inputs belong together"
        )
        sentence = f"one batch, {len(losses)} times: from {first:.2f} to {last:.2f} nats{advice}."
        return Check("overfit", passed, sentence, {"steps": len(losses), "first_nats": first, "last_nats": last})

    def learning_rate_range(self) -> Check:
        """The learning rates rise from step to step until the loss blows up (Smith, arXiv 1506.01186)."""
        n_steps = max(_FEWEST_STEPS, min(_RANGE_STEPS, int(max(0.0, self._seconds) / self._step_seconds)))
        factor = (_HIGHEST_SCALE / _LOWEST_SCALE) ** (1 / (n_steps - 1))
        scales = [_LOWEST_SCALE * factor**step for step in range(n_steps)]
        losses = self._train(scales, self._lessons, warm_up=False)
        if losses is None:
            return self._too_slow("learning rate")
        if not math.isfinite(losses[0]):
            return self._not_finite("learning rate", losses)
        lowest, edge = math.inf, None
        # The loss of a step is that of the weights which the step before has made.
        for scale, loss in zip(scales, losses[1:], strict=False):
            lowest = min(lowest, loss)
            if not loss <= max(lowest, losses[0]) + _BLOWN_UP_NATS:
                edge = scale
                break
        rates = f"lr {self._section.lr:g}, muon_lr {self._section.muon_lr:g}"
        figures: dict[str, float] = {"blows_up_at": edge or math.inf, "steps": n_steps, "lowest_nats": lowest}
        if edge is None:
            reached = scales[len(losses) - 2]
            sentence = f"rising to {reached:.2g} times the recipe's ({rates}), the loss stays in bounds."
            return Check("learning rate", True if reached > 1 else None, sentence, figures | {"highest_tried": reached})
        passed = edge > 1
        advice = "" if passed else ". Lower both, or lengthen the warm-up"
        sentence = f"the loss blows up at {edge:.2g} times the recipe's ({rates}){advice}."
        return Check("learning rate", passed, sentence, figures)

    def _begin_again(self) -> None:
        self._model.load_state_dict(self._fresh)
        self._model.zero_grad(set_to_none=True)

    def _mean_loss(self, batches: Sequence[Batch]) -> float:
        with torch.no_grad(), self._autocast():
            sums = [self._objective.loss_sum(self._model, batch)[0] for batch in batches]
        counts = [self._objective.count(batch) for batch in batches]
        return float(torch.stack(sums).sum() / torch.stack(counts).sum().clamp_min(1))

    def _backward(self, batch: Batch) -> float:
        self._model.zero_grad(set_to_none=True)
        with self._autocast():
            loss_sum, _ = self._objective.loss_sum(self._model, batch)
        loss = loss_sum / self._objective.count(batch).clamp_min(1)
        loss.backward()
        return float(loss.detach())

    def _train(
        self,
        scales: Sequence[float],
        batches: Sequence[Batch],
        watch_last: dict[str, Tensor] | None = None,
        warm_up: bool = True,
        share: float = 1.0,
    ) -> list[float] | None:
        """The loss before each step, at these multiples of the recipe's rates; as many steps as there is time for.

        `watch_last` takes the weights as they are before the last step. None where there is no time.
        """
        budget = share * self._seconds
        known = self._step_seconds if math.isfinite(self._step_seconds) else 0.0
        if budget <= known * min(len(scales), _FEWEST_STEPS):
            return None
        optimizer = build_optimizer(self._model, self._section)
        losses: list[float] = []
        began = time.perf_counter()
        for step, scale in enumerate(scales):
            started = time.perf_counter()
            losses.append(self._backward(batches[step % len(batches)]))
            if not math.isfinite(losses[-1]):
                break
            nn.utils.clip_grad_norm_(self._model.parameters(), self._section.clip_norm)
            if watch_last is not None and step == len(scales) - 1:
                watch_last |= {name: parameter.detach().clone() for name, parameter in self._model.named_parameters()}
            optimizer.scale_learning_rates(scale * (min(1.0, (step + 1) / _WARMUP_STEPS) if warm_up else 1.0))
            optimizer.step()
            self._step_seconds = min(self._step_seconds, time.perf_counter() - started)
            if time.perf_counter() - began > budget and len(losses) >= _FEWEST_STEPS:
                break
        self._seconds -= time.perf_counter() - began
        return losses

    def _too_slow(self, name: str) -> Check:
        sentence = f"not made: {self._seconds:.0f} s are left for it, too few for enough steps here."
        return Check(name, None, sentence, {"seconds_left": self._seconds})

    def _not_finite(self, name: str, losses: Sequence[float]) -> Check:
        """The check failed: the last of these losses has no finite value."""
        place = "before the first step" if len(losses) == 1 else f"after step {len(losses) - 1}"
        advice = "The weights or the data are damaged" if len(losses) == 1 else "Lower lr and muon_lr"
        sentence = f"the loss is {losses[-1]:g} {place}. {advice}."
        return Check(name, False, sentence, {"steps": len(losses) - 1, "last_nats": losses[-1]})

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16)


def _corner(batch: Batch) -> Batch:
    """A few rows of a batch, or the beginning of one: what is checked here does not depend on the size."""
    tokens = min(_LESSON_TOKENS, batch.input_ids.shape[1])
    rows = batch.rows(0, max(1, min(batch.n_rows, _LESSON_TOKENS // tokens)))
    return Batch(
        input_ids=rows.input_ids[:, :tokens],
        labels=rows.labels[:, :tokens],
        position_ids=rows.position_ids[:, :tokens],
        document_ids=rows.document_ids[:, :tokens],
        weights=None if rows.weights is None else rows.weights[:, :tokens],
    )
