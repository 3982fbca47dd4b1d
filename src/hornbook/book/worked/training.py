"""Worked examples of loss, gradient, optimizers and numbers, in float64; a test holds them against the code."""

import math
from typing import Any

import numpy as np

from hornbook.book.worked.network import softmax

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Keller Jordan's coefficients; the test holds them against the optimizer's."""
LOSS_LOGITS = [2.0, 1.0, 0.5, -1.0]
LOSS_LABEL = 1


def cross_entropy() -> dict[str, Any]:
    """Four scores, of which the second belongs to the token that came; loss, gradient, and a text's bits per byte."""
    probabilities = softmax(np.array(LOSS_LOGITS))
    gradient = probabilities - np.eye(len(LOSS_LOGITS))[LOSS_LABEL]
    nats = [0.5, 2.0, 0.1, 1.4]
    n_bytes = [4, 6, 3, 7]
    return {
        "logits": LOSS_LOGITS, "probabilities": probabilities.tolist(),
        "loss_nats": -math.log(probabilities[LOSS_LABEL]), "loss_bits": -math.log2(probabilities[LOSS_LABEL]),
        "gradient": gradient.tolist(),
        "token_nats": nats, "token_bytes": n_bytes, "total_nats": sum(nats), "total_bytes": sum(n_bytes),
        "mean_nats": sum(nats) / len(nats), "perplexity": math.exp(sum(nats) / len(nats)),
        "bits_per_byte": sum(nats) / math.log(2) / sum(n_bytes),
    }  # fmt: skip


def micro_batches() -> dict[str, Any]:
    """Two rows with 9 and 1 labels: the mean of all labels, and the mean of the rows' means."""
    first_labels, second_labels, first_mean, second_mean = 9, 1, 1.0, 5.0
    right = (first_labels * first_mean + second_labels * second_mean) / (first_labels + second_labels)
    return {"first_labels": first_labels, "second_labels": second_labels, "first_mean": first_mean,
            "second_mean": second_mean, "of_labels": right, "of_means": (first_mean + second_mean) / 2}  # fmt: skip


def backpropagation() -> dict[str, Any]:
    """The smallest network with a bend: y = u relu(w x), loss (y - target)², forwards and backwards."""
    x, w, u, target = 2.0, 1.5, -0.5, 1.0
    a = w * x
    h = max(a, 0.0)
    y = u * h
    loss = (y - target) ** 2
    by_y = 2 * (y - target)
    by_u, by_h = by_y * h, by_y * u
    by_a = by_h * (1.0 if a > 0 else 0.0)
    by_w = by_a * x
    rate = 0.01
    new_w, new_u = w - rate * by_w, u - rate * by_u
    return {"x": x, "w": w, "u": u, "target": target, "a": a, "h": h, "y": y, "loss": loss, "by_y": by_y, "by_u": by_u,
            "by_h": by_h, "by_a": by_a, "by_w": by_w, "rate": rate, "new_w": new_w, "new_u": new_u,
            "new_loss": (new_u * max(new_w * x, 0.0) - target) ** 2}  # fmt: skip


def packed_row() -> dict[str, Any]:
    """Two documents in a row of eight places: ids, labels (-100 where there is none), positions, documents."""
    documents, row_tokens = [[11, 12, 13, 14], [21, 22, 23]], 8
    ids, labels, positions, numbers = [], [], [], []
    for number, document in enumerate(documents):
        ids += document
        labels += [*document[1:], -100]
        positions += list(range(len(document)))
        numbers += [number] * len(document)
    padding = row_tokens - len(ids)
    return {
        "input_ids": ids + [0] * padding,
        "labels": labels + [-100] * padding,
        "position_ids": positions + list(range(padding)),
        "document_ids": numbers + [len(documents)] * padding,
    }


def adamw(steps: int = 3) -> dict[str, Any]:
    """One weight through three steps of AdamW."""
    lr, beta1, beta2, epsilon, decay = 0.1, 0.9, 0.95, 1e-8, 0.1
    weight, first, second, rows = 1.0, 0.0, 0.0, []
    gradients = [0.5, -0.2, 0.4]
    for step, gradient in enumerate(gradients[:steps], start=1):
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        corrected_first, corrected_second = first / (1 - beta1**step), second / (1 - beta2**step)
        move = corrected_first / (math.sqrt(corrected_second) + epsilon)
        weight = weight * (1 - lr * decay) - lr * move
        rows.append({"gradient": gradient, "first": first, "second": second, "corrected_first": corrected_first,
                     "corrected_second": corrected_second, "move": move, "weight": weight})  # fmt: skip
    return {"lr": lr, "beta1": beta1, "beta2": beta2, "decay": decay, "steps": rows}


NEWTON_SCHULZ_START = np.array([[3.0, 1.0], [1.0, 0.5]])


def newton_schulz(iterations: int = 5) -> dict[str, Any]:
    """A 2 × 2 matrix driven towards the nearest orthogonal one, with its singular values on the way."""
    a, b, c = NEWTON_SCHULZ
    x = NEWTON_SCHULZ_START / (np.linalg.norm(NEWTON_SCHULZ_START) + 1e-7)
    values = [np.linalg.svd(x, compute_uv=False).tolist()]
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
        values.append(np.linalg.svd(x, compute_uv=False).tolist())
    left, _, right = np.linalg.svd(NEWTON_SCHULZ_START)
    return {"start": NEWTON_SCHULZ_START.tolist(), "coefficients": [a, b, c], "singular_values": values,
            "result": x.tolist(), "nearest_orthogonal": (left @ right).tolist()}  # fmt: skip


def number_formats() -> dict[str, Any]:
    """What float32, bfloat16 and float16 can hold."""
    formats = {"float32": (8, 23), "bfloat16": (8, 7), "float16": (5, 10)}
    table = {}
    for name, (exponent_bits, fraction_bits) in formats.items():
        bias = 2 ** (exponent_bits - 1) - 1
        table[name] = {
            "exponent_bits": exponent_bits, "fraction_bits": fraction_bits,
            "bits": 1 + exponent_bits + fraction_bits, "next_after_one": 1 + 2.0**-fraction_bits,
            "digits": (fraction_bits + 1) * math.log10(2), "step_at_256": 256 * 2.0**-fraction_bits,
            "largest_power_of_ten": math.floor(math.log10(2 - 2.0**-fraction_bits) + bias * math.log10(2)),
            "smallest_power_of_ten": math.ceil((1 - bias) * math.log10(2)) - 1,
        }  # fmt: skip
    return table
