"""Fitting a scaling law to finished runs of several sizes, and what it predicts.

The fit is that of Hoffmann et al. 2022 (arXiv 2203.15556, appendix D.2, "approach 3"): the five numbers that give the
smallest Huber loss between the logarithms of predicted and measured losses, found by L-BFGS from a grid of beginnings,
for the surface has more than one valley. The intervals are those of the fit to runs drawn again with replacement.

torch is imported where a fit is made.
"""

import itertools
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hornbook.planning.curves import N_WINDOWS
from hornbook.planning.law import Approach, Law

if TYPE_CHECKING:
    import torch

_HUBER_DELTA = 1e-3
_LEAST_POINTS = 5
_INTERVAL = 0.8
_ITERATIONS = 100


@dataclass(frozen=True)
class Point:
    """A finished run: its parameters, the tokens it saw, and its loss in nats per token."""

    parameters: float
    tokens: float
    loss: float

    @property
    def flops(self) -> float:
        """The operations that it took, about."""
        return 6 * self.parameters * self.tokens


@dataclass(frozen=True)
class Interval:
    """Four fifths of what bootstrapped fits gave."""

    low: float
    high: float


def with_approach(law: Law, runs: Sequence[tuple[Point, Sequence[float | None]]], high: Sequence[int]) -> Law:
    """The law with how these runs came down to it, told from their losses in each window.

    high: the windows during which the learning rate was about its peak. Raises ValueError where some window has no
    value in any run, or `high` none in enough of them.
    """
    if not all(any(losses[number] is not None for _, losses in runs) for number in range(N_WINDOWS)):
        raise ValueError("the runs are too short: some windows of their training have no step")
    so_far = [
        Point(point.parameters, point.tokens * (number + 0.5) / N_WINDOWS, loss)
        for point, losses in runs
        for number in high
        if (loss := losses[number]) is not None
    ]
    under_way = fit_law(so_far, [law])
    flat = [0.0] * N_WINDOWS
    law = replace(law, approach=Approach(under_way, flat, flat))
    above, passed = list(flat), list(flat)
    for number in set(range(N_WINDOWS)) - set(high):
        measured = [
            (math.log(loss / under_way.losses(*size)[number]), law.way(*size))
            for point, losses in runs
            if (loss := losses[number]) is not None
            for size in [(point.parameters, point.tokens)]
        ]
        if number < min(high):
            above[number] = statistics.median(over for over, _ in measured)
        else:  # least squares through the origin, for who has a long way to go tells more
            squares = sum(way**2 for _, way in measured)
            passed[number] = sum(over * way for over, way in measured) / squares if squares else 0.0
    return replace(law, approach=Approach(under_way, above, passed))


def fit_law(points: Sequence[Point], beginnings: Sequence[Law] | None = None) -> Law:
    """The law that fits the runs best. Raises ValueError for fewer than five, which cannot tell five numbers."""
    if len(points) < _LEAST_POINTS:
        raise ValueError(f"a law of five numbers needs at least {_LEAST_POINTS} runs, not {len(points)}")
    import torch

    log_n, log_d, log_loss = (
        torch.tensor([math.log(value) for value in values], dtype=torch.float64)
        for values in zip(*((point.parameters, point.tokens, point.loss) for point in points), strict=True)
    )
    found = [
        _descend(torch.tensor(_as_logs(law), dtype=torch.float64), log_n, log_d, log_loss)
        for law in beginnings or _grid(points)
    ]
    return _as_law(min(found, key=lambda end: end[0])[1])


def bootstrap(points: Sequence[Point], law: Law, flops: float, n: int = 40, seed: int = 1) -> dict[str, Interval]:
    """Intervals of the law's numbers, and of the parameters and the loss that it says are best for some operations.

    Each draw begins its fit at `law`. A draw of fewer than five different runs is drawn again.
    """
    draw = random.Random(seed)
    found: dict[str, list[float]] = {}
    while len(found.get("e", [])) < n:
        drawn = [draw.choice(points) for _ in points]
        if len(set(drawn)) < _LEAST_POINTS:
            continue
        again = fit_law(drawn, [law])
        best, tokens = again.best_split(flops)
        numbers = {name: value for name, value in vars(again).items() if name != "approach"}
        figures = numbers | {"best_parameters": best, "best_loss": again.loss(best, tokens)}
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    return {name: _interval(values) for name, values in found.items()}


def best_of_valleys(points: Sequence[Point]) -> list[tuple[float, float, float]]:
    """For each budget of operations with three sizes or more: it, its best parameters, and the loss there.

    A parabola in the logarithm of the parameters is laid through the runs of one budget (the "isoFLOP" curves of
    Hoffmann et al., approach 2). A budget whose runs have no lowest point between them is left out.
    """
    budgets: dict[int, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.flops):
        budgets.setdefault(round(math.log2(point.flops)), []).append(point)
    found = []
    for runs in budgets.values():
        if len(runs) < 3:
            continue
        import numpy

        x = [math.log(run.parameters) for run in runs]
        a, b, c = numpy.polyfit(x, [run.loss for run in runs], 2)
        lowest = -b / (2 * a) if a > 0 else math.inf
        if min(x) <= lowest <= max(x):
            flops = math.exp(sum(math.log(run.flops) for run in runs) / len(runs))
            found.append((flops, math.exp(lowest), float(a * lowest**2 + b * lowest + c)))
    return found


def _grid(points: Sequence[Point]) -> Iterator[Law]:
    """Beginnings in which both terms are of the size that the losses leave to them, at the middle of the runs."""
    lowest = min(point.loss for point in points)
    n, d = (
        math.exp(sum(math.log(value) for value in values) / len(points))
        for values in zip(*((point.parameters, point.tokens) for point in points), strict=True)
    )
    for share, alpha, beta in itertools.product((0.3, 0.8), (0.25, 0.6), (0.25, 0.6)):
        left = (1 - share) * lowest / 2
        yield Law(share * lowest, left * n**alpha, left * d**beta, alpha, beta)


def _descend(
    numbers: "torch.Tensor", log_n: "torch.Tensor", log_d: "torch.Tensor", log_loss: "torch.Tensor"
) -> tuple[float, list[float]]:
    """L-BFGS from one beginning: the loss of the fit at its end, and the logarithms and exponents there."""
    import torch

    numbers = numbers.clone().requires_grad_()
    descent = torch.optim.LBFGS([numbers], max_iter=_ITERATIONS, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def misfit() -> torch.Tensor:
        e, a, b, alpha, beta = numbers
        terms = torch.stack([a - alpha * log_n, b - beta * log_d, e.expand_as(log_n)])
        residual = torch.logsumexp(terms, dim=0) - log_loss
        return torch.nn.functional.huber_loss(residual, torch.zeros_like(residual), reduction="sum", delta=_HUBER_DELTA)

    def closure() -> torch.Tensor:
        descent.zero_grad()
        loss = misfit()
        loss.backward()
        return loss

    descent.step(closure)  # type: ignore[no-untyped-call, unused-ignore]
    end = float(misfit().detach())
    return (end if math.isfinite(end) else math.inf), numbers.detach().tolist()


def _as_logs(law: Law) -> list[float]:
    e, a, b, alpha, beta = law.e, law.a, law.b, law.alpha, law.beta
    return [math.log(e), math.log(a), math.log(b), alpha, beta]


def _as_law(numbers: Sequence[float]) -> Law:
    e, a, b, alpha, beta = numbers
    return Law(math.exp(e), math.exp(a), math.exp(b), alpha, beta)


def _interval(values: Sequence[float]) -> Interval:
    ordered = sorted(values)
    cut = round((1 - _INTERVAL) / 2 * (len(ordered) - 1))
    return Interval(ordered[cut], ordered[-1 - cut])
