"""Worked examples of the network's parts, in float64; tests/book/test_worked.py holds them against the model."""

import math
from typing import Any

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(x) over the sum of exp(x), along the last dimension; the largest is subtracted first."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def softmax_example() -> dict[str, Any]:
    """Three scores as probabilities, at three temperatures."""
    scores = np.array([2.0, 1.0, 0.0])
    return {
        "scores": scores.tolist(),
        "exponentials": np.exp(scores).tolist(),
        "sum": float(np.exp(scores).sum()),
        "cold": softmax(scores / 0.5).tolist(),
        "plain": softmax(scores).tolist(),
        "hot": softmax(scores / 2.0).tolist(),
    }


ATTENTION_X = np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]])
ATTENTION_WQ = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
ATTENTION_WK = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
ATTENTION_WV = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])


def attention() -> dict[str, Any]:
    """One head of two numbers over three tokens, from the projections to the result."""
    q, k, v = ATTENTION_X @ ATTENTION_WQ, ATTENTION_X @ ATTENTION_WK, ATTENTION_X @ ATTENTION_WV
    scores = q @ k.T
    scaled = scores / math.sqrt(q.shape[1])
    visible = np.tril(np.ones_like(scaled, dtype=bool))
    weights = softmax(np.where(visible, scaled, -np.inf))
    return {
        "x": ATTENTION_X.tolist(), "wq": ATTENTION_WQ.tolist(), "wk": ATTENTION_WK.tolist(),
        "wv": ATTENTION_WV.tolist(),
        "q": q.tolist(), "k": k.tolist(), "v": v.tolist(),
        "scores": scores.tolist(), "scaled": scaled.tolist(), "weights": weights.tolist(),
        "unmasked_weights": softmax(scaled).tolist(), "result": (weights @ v).tolist(),
    }  # fmt: skip


def turn(vector: np.ndarray, position: float, theta: float) -> np.ndarray:
    """The rotary embedding of one vector: pair i is the numbers i and i + half."""
    half = len(vector) // 2
    angles = position * theta ** (-2 * np.arange(half) / len(vector))
    first, second = vector[:half], vector[half:]
    return np.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)]
    )


def rotation() -> dict[str, Any]:
    """Two vectors of four numbers turned at two pairs of positions of the same distance."""
    theta, q, k = 100.0, np.array([1.0, 0.5, 0.0, 1.0]), np.array([0.5, 1.0, 1.0, 0.0])
    at = {position: (turn(q, position, theta), turn(k, position, theta)) for position in (0, 1, 3, 5, 7)}
    half = len(q) // 2
    return {
        "theta": theta, "q": q.tolist(), "k": k.tolist(),
        "frequencies": (theta ** (-2 * np.arange(half) / len(q))).tolist(),
        "q_at_3": at[3][0].tolist(), "k_at_1": at[1][1].tolist(),
        "q_at_7": at[7][0].tolist(), "k_at_5": at[5][1].tolist(),
        "score_3_1": float(at[3][0] @ at[1][1]), "score_7_5": float(at[7][0] @ at[5][1]),
        "score_7_1": float(at[7][0] @ at[1][1]), "score_unturned": float(q @ k),
    }  # fmt: skip


def norms() -> dict[str, Any]:
    """A vector normalised in both ways, without weights."""
    x = np.array([3.0, -1.0, 2.0, 0.0])
    rms = math.sqrt(float(np.mean(x**2)))
    centred = x - x.mean()
    return {
        "x": x.tolist(), "mean_square": float(np.mean(x**2)), "rms": rms, "rmsnorm": (x / rms).tolist(),
        "mean": float(x.mean()), "variance": float(x.var()),
        "layernorm": (centred / math.sqrt(float(x.var()))).tolist(),
    }  # fmt: skip


def gelu(x: float) -> float:
    """GELU by its tanh approximation, as in GPT-2."""
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: float) -> float:
    """x times the logistic function of x."""
    return x / (1 + math.exp(-x))


def activations() -> dict[str, Any]:
    """Both bends at a few places."""
    places = [-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]
    return {"x": places, "gelu": [gelu(x) for x in places], "silu": [silu(x) for x in places]}


SPLIT_X = np.array([1.0, -1.0, 2.0])
SPLIT_UP = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [2.0, 1.0, 0.0], [1.0, -1.0, -1.0]])
SPLIT_DOWN = np.array([[1.0, 0.0, 2.0, 1.0], [0.0, 3.0, 1.0, 0.0], [1.0, 1.0, 0.0, 2.0]])


def split_feed_forward() -> dict[str, Any]:
    """A feed-forward with ReLU, and as two devices compute it: rows of the first matrix, columns of the second."""
    wide = np.maximum(SPLIT_UP @ SPLIT_X, 0)
    parts = [SPLIT_DOWN[:, half] @ np.maximum(SPLIT_UP[half] @ SPLIT_X, 0) for half in (slice(0, 2), slice(2, 4))]
    return {
        "x": SPLIT_X.tolist(), "up": SPLIT_UP.tolist(), "down": SPLIT_DOWN.tolist(),
        "up_1": SPLIT_UP[:2].tolist(), "up_2": SPLIT_UP[2:].tolist(),
        "down_1": SPLIT_DOWN[:, :2].tolist(), "down_2": SPLIT_DOWN[:, 2:].tolist(),
        "before": (SPLIT_UP @ SPLIT_X).tolist(), "wide": wide.tolist(), "wide_1": wide[:2].tolist(),
        "wide_2": wide[2:].tolist(), "part_1": parts[0].tolist(), "part_2": parts[1].tolist(),
        "result": (SPLIT_DOWN @ wide).tolist(),
    }  # fmt: skip
