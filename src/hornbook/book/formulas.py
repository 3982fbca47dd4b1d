"""Pictures of formulas: the same in every book, since no run has a part in them."""

import math
from typing import TYPE_CHECKING

import numpy as np

from hornbook.book.figures import Draw, lines
from hornbook.book.run_facts import Run
from hornbook.book.worked.costs import best_size, chinchilla_loss
from hornbook.book.worked.network import gelu, silu, softmax

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULAS: dict[str, Draw] = {
    "formula-temperature": lambda run: temperature(run),
    "formula-wavelengths": lambda run: wavelengths(run),
    "formula-activations": lambda run: bends(run),
    "formula-cross-entropy": lambda run: surprise(run),
    "formula-schedules": lambda run: schedules(run),
    "formula-newton-schulz": lambda run: polynomial(run),
    "formula-chinchilla": lambda run: chinchilla(run),
    "formula-curves": lambda run: curves_gone_wrong(run),
}


def temperature(run: Run) -> "tuple[Figure, str]":
    """The probability of the best of three scores, by temperature."""
    temperatures = np.linspace(0.1, 4, 200)
    probabilities = np.array([softmax(np.array([2.0, 1.0, 0.0]) / t) for t in temperatures])
    curves = {f"score {score}": (temperatures, probabilities[:, i]) for i, score in enumerate((2, 1, 0))}
    return lines(curves, xlabel="temperature", ylabel="probability", ylim=(0, 1)), (
        "Probabilities of three scores against temperature: near zero the best has all, far up all are alike."
    )


def wavelengths(run: Run) -> "tuple[Figure, str]":
    """The wavelength of each pair of a head of 64, for three bases."""
    pairs = np.arange(32)
    curves = {f"base {base:,}": (pairs, 2 * math.pi * base ** (2 * pairs / 64)) for base in (100, 10_000, 100_000)}
    return lines(curves, xlabel="pair of the head", ylabel="tokens for one turn", yscale="log"), (
        "Wavelengths of the rotary pairs rise evenly on a logarithmic scale, from 6 tokens to about 2 pi bases."
    )


def bends(run: Run) -> "tuple[Figure, str]":
    """ReLU, GELU and SiLU."""
    x = np.linspace(-4, 3, 200)
    curves = {
        "ReLU": (x, np.maximum(x, 0)),
        "GELU": (x, np.array([gelu(v) for v in x])),
        "SiLU": (x, np.array([silu(v) for v in x])),
    }
    return lines(curves, xlabel="x"), "ReLU, GELU and SiLU: all near zero on the left and near x on the right."


def surprise(run: Run) -> "tuple[Figure, str]":
    """The loss of one token by the probability that it was given."""
    p = np.linspace(0.005, 1, 200)
    return lines({"−ln p": (p, -np.log(p))}, xlabel="probability given to what came", ylabel="loss (nats)"), (
        "The loss is zero at probability one and grows without bound towards probability zero."
    )


def schedules(run: Run) -> "tuple[Figure, str]":
    """Cosine, WSD and constant, with a warm-up of five percent."""
    x = np.linspace(0, 1, 400)
    warm = np.minimum(1, x / 0.05)
    cosine = warm * np.where(x < 0.05, 1, (1 + np.cos(np.pi * (x - 0.05) / 0.95)) / 2)
    stable = warm * np.clip((1 - x) / 0.3, 0, 1)
    curves = {"cosine": (x, cosine), "warm-up, stable, decay": (x, stable), "constant": (x, warm)}
    return lines(curves, xlabel="share of the run", ylabel="share of the peak rate"), (
        "Three schedules: all warm up; cosine falls at once, the second stays up and falls at the end, constant stays."
    )


def polynomial(run: Run) -> "tuple[Figure, str]":
    """What Newton-Schulz makes of a singular value in one iteration and in five."""
    a, b, c = 3.4445, -4.7750, 2.0315
    s = np.linspace(0, 1.05, 400)
    once = a * s + b * s**3 + c * s**5
    five = s
    for _ in range(5):
        five = a * five + b * five**3 + c * five**5
    curves = {"one iteration": (s, once), "five iterations": (s, five), "unchanged": (s, s)}
    return lines(curves, xlabel="singular value before", ylabel="singular value after"), (
        "Five iterations lift all singular values but the very smallest to between about 0.7 and 1.2."
    )


def chinchilla(run: Run) -> "tuple[Figure, str]":
    """The fitted loss for three budgets of computing, by model size."""
    curves = {}
    for exponent in (18, 20, 22):
        flops = 10.0**exponent
        best, _ = best_size(flops)
        sizes = best * np.logspace(-1.3, 1.3, 100)
        curves[f"1e{exponent} FLOPs"] = (sizes, np.array([chinchilla_loss(n, flops / 6 / n) for n in sizes]))
    return lines(curves, xlabel="parameters", ylabel="loss (nats per token)", xscale="log"), (
        "For each budget the fitted loss against model size is a valley; its bottom moves right with the budget."
    )


def curves_gone_wrong(run: Run) -> "tuple[Figure, str]":
    """Sketches of curves: as it should be, rate too high, spike, overfitting."""
    x = np.linspace(0, 1, 300)
    good = 1.5 + 7 * np.exp(-9 * x) - 0.3 * x
    high = 3.4 + 5.4 * np.exp(-6 * x) + 0.25 * np.sin(60 * x) * x
    spike = good + 3.2 * np.exp(-((x - 0.55) ** 2) / 0.0006) + np.where(x > 0.55, 0.25 * np.exp(-5 * (x - 0.55)), 0)
    over = 1.9 + 7 * np.exp(-9 * x) + 1.6 * np.maximum(0, x - 0.45) ** 1.5
    curves = {"as it should be": (x, good), "rate too high": (x, high), "a spike": (x, spike),
              "validation, overfitting": (x, over)}  # fmt: skip
    return lines(curves, 2.8, xlabel="share of the run", ylabel="loss (nats)", ylim=(0.8, 9)), (
        "Four loss curves: a smooth fall; one that stays high and trembles; one with a spike; one that rises again."
    )
