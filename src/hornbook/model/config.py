"""The shape of a model, and the three presets a recipe can name.

A `ModelConfig` says everything that decides the weights' names and shapes and what is computed with them.
There is one Transformer; a preset only picks among its parts:

| preset | normalisation | positions | feed-forward | bias | query and key norm |
|---|---|---|---|---|---|
| gpt2  | LayerNorm | learned | GELU, 4 d_model | yes | no |
| llama | RMSNorm | rotary | SwiGLU, 8/3 d_model | no | no |
| qwen3 | RMSNorm | rotary | SwiGLU, 8/3 d_model | no | yes |

Sources: GPT-2 (Radford et al. 2019), Llama (arXiv 2302.13971), Qwen3 (arXiv 2505.09388).
This module imports no torch.
"""

from dataclasses import dataclass
from typing import Literal

from hornbook.errors import UserError
from hornbook.recipe import ModelSection

Architecture = Literal["gpt2", "llama", "qwen3"]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what the weights are called, their shapes and what is computed with them."""

    architecture: Architecture
    vocab_size: int
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    max_seq_len: int
    norm: Literal["layernorm", "rmsnorm"]
    norm_eps: float
    positions: Literal["learned", "rotary"]
    rope_theta: float
    activation: Literal["gelu", "swiglu"]
    bias: bool
    qk_norm: bool
    tie_embeddings: bool


def swiglu_width(d_model: int) -> int:
    """Llama's feed-forward width: 8/3 d_model, rounded up to a multiple of 64.

    A gated feed-forward has three matrices where GPT-2's has two, so 8/3 d_model costs as much as 4 d_model
    (Shazeer, arXiv 2002.05202).
    """
    return -(-8 * d_model // (3 * 64)) * 64


def config_from_recipe(section: ModelSection, vocab_size: int) -> ModelConfig:
    """Fill in what the recipe leaves to its preset.

    Raises `UserError` where the preset cannot do what the recipe asks for (GPT-2 has a key head for each
    query head).
    """
    head_dim = section.head_dim or section.d_model // section.n_heads
    n_kv_heads = section.n_kv_heads or section.n_heads
    is_gpt2 = section.preset == "gpt2"
    if is_gpt2 and n_kv_heads != section.n_heads:
        raise UserError(
            f"model.n_kv_heads is {n_kv_heads}, but the preset gpt2 needs model.n_heads ({section.n_heads}): "
            "leave it out, or choose the preset llama or qwen3"
        )
    if is_gpt2 and head_dim * section.n_heads != section.d_model:
        raise UserError(
            f"model.head_dim is {head_dim}, but the preset gpt2 needs d_model / n_heads "
            f"({section.d_model} / {section.n_heads}): leave it out, or choose the preset llama or qwen3"
        )
    return ModelConfig(
        architecture=section.preset,
        vocab_size=vocab_size,
        n_layers=section.n_layers,
        d_model=section.d_model,
        n_heads=section.n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        d_ff=section.d_ff or (4 * section.d_model if is_gpt2 else swiglu_width(section.d_model)),
        max_seq_len=section.max_seq_len,
        norm="layernorm" if is_gpt2 else "rmsnorm",
        norm_eps=1e-6 if section.preset == "qwen3" else 1e-5,
        positions="learned" if is_gpt2 else "rotary",
        rope_theta=section.rope_theta,
        activation="gelu" if is_gpt2 else "swiglu",
        bias=is_gpt2,
        qk_norm=section.preset == "qwen3",
        tie_embeddings=section.tie_embeddings,
    )
