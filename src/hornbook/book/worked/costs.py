"""Worked budgets: memory, time, devices and losses of three sizes, by the project's own planning."""

import math
from typing import Any

from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.planning.flops import flops_per_token, parameters_by_part
from hornbook.planning.memory import training_memory
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import TrainingSection

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
BATCH_TOKENS = 2**19
DOLLARS_PER_H100_HOUR = 2.5

# What four kinds of readers have: FLOP/s at best, utilisation, devices, days. The processor has four cores without
# bfloat16; the card is a GeForce RTX 4090, the accelerator an H100, by their datasheets for dense bfloat16.
MEANS = {
    "laptop": (0.3e12, 0.4, 1, 1 / 3),
    "one": (165.2e12, 0.35, 1, 3),
    "eight": (H100_FLOPS_PER_SECOND, 0.4, 8, 7),
    "cluster": (H100_FLOPS_PER_SECOND, 0.4, 512, 30),
}


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
    again = training_memory(config, section.model_copy(update={"recompute": "full"}), 1, "accelerator")
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
        "bf16_gb": 2 * n_parameters / 1e9, "recomputed_activations_gb": again.activations / 1e9,
        "each_of_eight_gb": (memory.weights + memory.gradients + memory.optimizer) / 8e9
        + (again.activations + again.logits) / 1e9,
        "tokens_per_second": H100_FLOPS_PER_SECOND * UTILISATION / per_token.total,
        "steps": tokens / BATCH_TOKENS, "dollars": seconds / 3600 * DOLLARS_PER_H100_HOUR,
        "loss_by_law": chinchilla_loss(n_parameters, tokens),
    }  # fmt: skip


def devices(n: int = 8) -> dict[str, Any]:
    """What each of eight devices holds of the 8B model, and how much it sends in a step, by each way of dividing.

    Weights and activations are sent in bfloat16, gradients in float32, for one row of the whole context. A ring sends
    (n - 1)/n of a vector in a reduce-scatter or an all-gather, and twice that in an all-reduce.
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


def cache_bytes() -> dict[str, Any]:
    """The keys and values of one row of 8B's context, in bfloat16, with its own heads and with as many as queries."""
    config = shape("8B")
    per_token = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2
    multi_head = 2 * config.n_layers * config.n_heads * config.head_dim * 2
    return {"bytes_per_token": per_token, "row_gb": per_token * config.max_seq_len / 1e9,
            "multi_head_row_gb": multi_head * config.max_seq_len / 1e9, "head_dim": config.head_dim}  # fmt: skip


def power_law() -> dict[str, Any]:
    """An exponent from the losses of two sizes, and the loss of a third that it predicts; data without end."""
    sizes = [10e6, 40e6, 160e6]
    losses = [round(chinchilla_loss(n, float("inf")), 3) for n in sizes]
    above = [loss - CHINCHILLA["floor"] for loss in losses]
    exponent = math.log(above[0] / above[1]) / math.log(sizes[1] / sizes[0])
    factor = (sizes[1] / sizes[2]) ** exponent
    return {"millions": [n / 1e6 for n in sizes], "losses": losses, "above": above, "exponent": exponent,
            "factor": factor, "predicted": CHINCHILLA["floor"] + above[1] * factor}  # fmt: skip


def means() -> dict[str, Any]:
    """What each kind of reader can do: operations, and by the fit the best size, its tokens and its loss."""
    rows = {}
    for name, (flops_per_second, utilisation, n_devices, days) in MEANS.items():
        flops = flops_per_second * utilisation * n_devices * days * 86_400
        n = math.sqrt(flops / 6 / TOKENS_PER_PARAMETER)
        d = TOKENS_PER_PARAMETER * n
        rows[name] = {"flops": flops, "power_of_ten": math.floor(math.log10(flops)),
                      "leading": flops / 10 ** math.floor(math.log10(flops)), "parameters_millions": n / 1e6,
                      "tokens_billions": d / 1e9, "loss": chinchilla_loss(n, d)}  # fmt: skip
    return rows
