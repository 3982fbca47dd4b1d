"""Worked examples of what comes after pretraining: adapters, preferences, rewards, choosing tokens, scores."""

import math
from typing import Any

import numpy as np

from hornbook.book.worked.network import softmax

ADVANTAGE_EPSILON = 1e-4
"""Keeps the spread of a group from being zero, as in hornbook.objectives.policy; the test holds the two together."""


def lora(d_out: int = 2048, d_in: int = 2048, rank: int = 16) -> dict[str, Any]:
    """How much smaller a low-rank adapter is than the matrix that it changes."""
    full, low = d_out * d_in, rank * (d_out + d_in)
    return {"d_out": d_out, "d_in": d_in, "rank": rank, "full": full, "low": low, "share": low / full}


def dpo() -> dict[str, Any]:
    """The DPO loss of one pair, from four log-probabilities."""
    beta, chosen, rejected, reference_chosen, reference_rejected = 0.1, -12.0, -15.0, -13.0, -13.5
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    probability = 1 / (1 + math.exp(-margin))
    return {"beta": beta, "chosen": chosen, "rejected": rejected, "reference_chosen": reference_chosen,
            "reference_rejected": reference_rejected, "margin": margin, "probability": probability,
            "loss": -math.log(probability), "start_loss": math.log(2)}  # fmt: skip


def group_advantages() -> dict[str, Any]:
    """GRPO's advantages of eight answers to one question, two of them right, as the objective computes them."""
    rewards = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    spread = float(rewards.std(ddof=1))
    advantages = (rewards - rewards.mean()) / (spread + ADVANTAGE_EPSILON)
    return {"rewards": rewards.tolist(), "mean": float(rewards.mean()), "spread": spread,
            "advantages": advantages.tolist()}  # fmt: skip


def sampling() -> dict[str, Any]:
    """Five scores under temperature, top-k and top-p."""
    scores = np.array([3.0, 2.0, 1.5, 0.0, -1.0])
    plain = softmax(scores)
    top_two = np.where(np.arange(5) < 2, plain, 0.0)
    before = np.cumsum(plain) - plain
    nucleus = np.where(before < 0.9, plain, 0.0)
    return {
        "scores": scores.tolist(), "plain": plain.tolist(), "cool": softmax(scores / 0.7).tolist(),
        "top_two": (top_two / top_two.sum()).tolist(), "nucleus": (nucleus / nucleus.sum()).tolist(),
        "ends": np.cumsum(plain).tolist(),
    }  # fmt: skip


def standard_error(p: float = 0.44) -> dict[str, Any]:
    """How sure a score of some questions is."""
    sizes = {str(n): math.sqrt(p * (1 - p) / (n - 1)) for n in (50, 200, 1000)}
    return {"p": p, "of": sizes, "questions_for_one_percent": math.ceil(p * (1 - p) / 0.01**2) + 1}
