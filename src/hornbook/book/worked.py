"""The worked examples: small enough to follow with a pencil, computed here when the book is built.

Where the project's own code runs without torch (byte-pair encoding, planning), it is the one that computes. The rest is
the same formula in numpy, in float64; tests/book/test_worked.py holds it against the code that it explains.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np

from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.planning.flops import flops_per_token, parameters_by_part
from hornbook.planning.memory import training_memory
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import TrainingSection
from hornbook.tokenizer.bpe import SPLIT_PATTERNS, BytePairEncoding, count_words, train

BPE_TEXT = "low low low low low lower lower newest newest newest newest newest newest widest widest widest"
BPE_MERGES = 10
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Keller Jordan's coefficients; the test holds them against the optimizer's."""

ADVANTAGE_EPSILON = 1e-4
"""What keeps the spread of a group from being zero, as in hornbook.objectives.policy; the test holds the two together."""

SIZES = {
    "124M": (
        ModelSection(preset="gpt2", n_layers=12, d_model=768, n_heads=12, max_seq_len=1024, tie_embeddings=True),
        50_257,
    ),
    "1B": (
        ModelSection(preset="llama3", n_layers=16, d_model=2048, n_heads=32, n_kv_heads=8, d_ff=8192,
                     max_seq_len=4096, tie_embeddings=True),
        128_256,
    ),
    "8B": (
        ModelSection(preset="llama3", n_layers=32, d_model=4096, n_heads=32, n_kv_heads=8, d_ff=14_336,
                     max_seq_len=8192, tie_embeddings=False),
        128_256,
    ),
}  # fmt: skip
"""GPT-2's smallest, Llama 3.2 1B and Llama 3 8B, by their published shapes."""

H100_FLOPS_PER_SECOND = 989.4e12
UTILISATION = 0.4
TOKENS_PER_PARAMETER = 20


def all_examples() -> dict[str, Any]:
    """Every worked example by name, as plain numbers."""
    return {
        "bigram": bigram(),
        "bpe": byte_pairs(),
        "softmax": softmax_example(),
        "attention": attention(),
        "rotation": rotation(),
        "norms": norms(),
        "activations": activations(),
        "loss": cross_entropy(),
        "micro_batches": micro_batches(),
        "backpropagation": backpropagation(),
        "packed": packed_row(),
        "adamw": adamw(),
        "newton_schulz": newton_schulz(),
        "numbers": number_formats(),
        "budget": {name: budget(name) for name in SIZES},
        "lora": lora(),
        "dpo": dpo(),
        "grpo": group_advantages(),
        "sampling": sampling(),
        "scaling": scaling(),
        "standard_error": standard_error(),
        "cache": cache_bytes(),
        "split": split_feed_forward(),
        "devices": devices(),
    }


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(x) over the sum of exp(x), along the last dimension; the largest is subtracted first."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def bigram() -> dict[str, Any]:
    """A model that counts: which word followed "the" in a small text."""
    text = "the cat saw the dog and the dog saw the cat and the cat ran"
    followers = [after for word, after in pairwise(text.split()) if word == "the"]
    counts = {word: followers.count(word) for word in dict.fromkeys(followers)}
    chances = {word: count / len(followers) for word, count in counts.items()}
    return {
        "text": text,
        "n_followers": len(followers),
        "counts": counts,
        "probability": chances,
        "nats": {word: -math.log(chance) for word, chance in chances.items()},
        "mean_nats": -sum(chance * math.log(chance) for chance in chances.values()),
    }


def byte_pairs() -> dict[str, Any]:
    """Byte-pair encoding of a few words, by the project's own trainer: the merges, and a new word cut by them."""
    pattern = SPLIT_PATTERNS["gpt2"]
    words = count_words([BPE_TEXT], pattern)
    merges = train([BPE_TEXT], 256 + BPE_MERGES, pattern)
    steps = []
    for n in range(1, len(merges) + 1):
        before, after = BytePairEncoding(merges[: n - 1], pattern), BytePairEncoding(merges[:n], pattern)
        tokens_before = sum(count * len(before.encode(word)) for word, count in words.items())
        tokens_after = sum(count * len(after.encode(word)) for word, count in words.items())
        left, right = merges[n - 1]
        steps.append(
            {"left": _shown(left), "right": _shown(right), "token": _shown(left + right),
             "count": tokens_before - tokens_after, "tokens_after": tokens_after}
        )  # fmt: skip
    coder = BytePairEncoding(merges, pattern)
    return {
        "text": BPE_TEXT,
        "words": [{"word": _shown(word.encode()), "count": count} for word, count in words.items()],
        "n_bytes": len(BPE_TEXT.encode()),
        "steps": steps,
        "n_tokens": len(coder.encode(BPE_TEXT)),
        "bytes_per_token": len(BPE_TEXT.encode()) / len(coder.encode(BPE_TEXT)),
        "new_word": [_shown(coder.tokens[id]) for id in coder.encode(" lowest")],
    }


def _shown(token: bytes) -> str:
    return token.decode().replace(" ", "␣")


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


def shape(name: str) -> ModelConfig:
    """The configuration of one of the three sizes."""
    section, vocab_size = SIZES[name]
    return config_from_recipe(section, vocab_size)


def budget(name: str) -> dict[str, Any]:
    """Parameters, tokens, operations, time and memory of one of the three sizes, by the project's own planning."""
    config = shape(name)
    parts = parameters_by_part(config)
    n_parameters = sum(parts.values())
    tokens = TOKENS_PER_PARAMETER * n_parameters
    per_token = flops_per_token(config, config.max_seq_len)
    flops = per_token.total * tokens
    seconds = flops / (H100_FLOPS_PER_SECOND * UTILISATION)
    section = TrainingSection(tokens=config.max_seq_len, global_batch_tokens=config.max_seq_len, optimizer="adamw")
    memory = training_memory(config, section, 1, "accelerator")
    return {
        "n_layers": config.n_layers, "d_model": config.d_model, "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads, "d_ff": config.d_ff, "vocab_size": config.vocab_size,
        "context": config.max_seq_len, "parts_millions": {part: count / 1e6 for part, count in parts.items()},
        "parameters": n_parameters, "parameters_millions": n_parameters / 1e6,
        "parameters_billions": n_parameters / 1e9,
        "tokens_billions": tokens / 1e9, "gigaflops_per_token": per_token.total / 1e9,
        "gigaflops_per_token_6n": 6 * n_parameters / 1e9,
        "attention_share": (per_token.attention_forward + per_token.attention_backward) / per_token.total,
        "exaflops": flops / 1e18, "h100_hours": seconds / 3600, "h100_days": seconds / 86_400,
        "h100_days_on_eight": seconds / 86_400 / 8,
        "weights_gb": memory.weights / 1e9, "gradients_gb": memory.gradients / 1e9,
        "optimizer_gb": memory.optimizer / 1e9, "cast_weights_gb": memory.cast_weights / 1e9,
        "activations_gb": memory.activations / 1e9, "logits_gb": memory.logits / 1e9,
        "state_gb": (memory.weights + memory.gradients + memory.optimizer) / 1e9, "total_gb": memory.total / 1e9,
        "bf16_gb": 2 * n_parameters / 1e9,
    }  # fmt: skip


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


# Hoffmann et al., arXiv 2203.15556, equation 10: loss = E + A / N^alpha + B / D^beta.
CHINCHILLA = {"floor": 1.69, "a": 406.4, "b": 410.7, "alpha": 0.34, "beta": 0.28}


def chinchilla_loss(n_parameters: float, n_tokens: float) -> float:
    """The loss in nats per token that Chinchilla's fit gives."""
    fit = CHINCHILLA
    return fit["floor"] + fit["a"] / n_parameters ** fit["alpha"] + fit["b"] / n_tokens ** fit["beta"]


def best_size(flops: float) -> tuple[float, float]:
    """Parameters and tokens with 6 N D = flops that give the lowest loss by the fit, in closed form."""
    fit = CHINCHILLA
    exponent = fit["alpha"] + fit["beta"]
    ratio = (fit["alpha"] * fit["a"] / (fit["beta"] * fit["b"])) ** (1 / exponent)
    n_parameters = ratio * (flops / 6) ** (fit["beta"] / exponent)
    return n_parameters, flops / 6 / n_parameters


def scaling() -> dict[str, Any]:
    """The fit at a few sizes, and the best size for a few budgets."""
    budgets = {}
    for name, flops in (("e18", 1e18), ("e20", 1e20), ("e22", 1e22), ("e24", 1e24)):
        n, d = best_size(flops)
        budgets[name] = {"parameters_millions": n / 1e6, "tokens_billions": d / 1e9, "ratio": d / n,
                         "loss": chinchilla_loss(n, d)}  # fmt: skip
    return {
        **CHINCHILLA,
        "at_70b": {
            "size_term": CHINCHILLA["a"] / 70e9 ** CHINCHILLA["alpha"],
            "data_term": CHINCHILLA["b"] / 1.4e12 ** CHINCHILLA["beta"],
            "loss": chinchilla_loss(70e9, 1.4e12),
        },
        "budgets": budgets,
    }


def standard_error(p: float = 0.44) -> dict[str, Any]:
    """How sure a score of some questions is."""
    sizes = {str(n): math.sqrt(p * (1 - p) / (n - 1)) for n in (50, 200, 1000)}
    return {"p": p, "of": sizes, "questions_for_one_percent": math.ceil(p * (1 - p) / 0.01**2) + 1}


def cache_bytes() -> dict[str, Any]:
    """The keys and values of one row of 8B's context, in bfloat16, with its own heads and with as many as queries."""
    config = shape("8B")
    per_token = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2
    multi_head = 2 * config.n_layers * config.n_heads * config.head_dim * 2
    return {"bytes_per_token": per_token, "row_gb": per_token * config.max_seq_len / 1e9,
            "multi_head_row_gb": multi_head * config.max_seq_len / 1e9, "head_dim": config.head_dim}  # fmt: skip


SPLIT_X = np.array([1.0, -1.0, 2.0])
SPLIT_UP = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [2.0, 1.0, 0.0], [1.0, -1.0, -1.0]])
SPLIT_DOWN = np.array([[1.0, 0.0, 2.0, 1.0], [0.0, 3.0, 1.0, 0.0], [1.0, 1.0, 0.0, 2.0]])


def split_feed_forward() -> dict[str, Any]:
    """A feed-forward with ReLU whole, and as two devices compute it: rows of the first matrix, columns of the second."""
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


def devices(n: int = 8) -> dict[str, Any]:
    """What each of eight devices holds of the 8B model, and how much it sends in a step, by each way of dividing.

    Weights are sent in bfloat16, gradients in float32, activations in bfloat16, for one row of the whole context. A ring
    sends (n - 1)/n of a vector in a reduce-scatter or an all-gather, and twice that in an all-reduce.
    """
    config, whole = shape("8B"), budget("8B")
    on_ring = (n - 1) / n
    weights_gb, gradients_gb = whole["bf16_gb"], whole["gradients_gb"]
    row_gb = config.max_seq_len * config.d_model * 2 / 1e9
    return {
        "n": n, "state_gb": whole["state_gb"], "state_of_each_gb": whole["state_gb"] / n, "row_gb": row_gb,
        "data_sends_gb": 2 * on_ring * gradients_gb,
        "sharded_sends_gb": on_ring * (2 * weights_gb + gradients_gb),
        # One all-reduce after each half of a layer, forward and backward.
        "tensor_sends_gb": 4 * config.n_layers * 2 * on_ring * row_gb,
        # What comes out of a stage goes on once, and its gradient comes back once.
        "pipeline_sends_gb": 2 * row_gb,
    }  # fmt: skip
