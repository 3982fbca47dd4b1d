"""The shape of a model, and the presets a recipe can name.

A `ModelConfig` says everything that decides the weights' names and shapes and what is computed with them.
There is one Transformer; a preset only picks among its parts:

| preset | normalisation | positions | feed-forward | bias | query and key norm |
|---|---|---|---|---|---|
| gpt2   | LayerNorm | learned | GELU, 4 d_model | yes | no |
| llama  | RMSNorm | rotary, base 10,000 | SwiGLU, 8/3 d_model | no | no |
| llama3 | RMSNorm | rotary, base 500,000 | SwiGLU, 8/3 d_model | no | no |
| qwen3  | RMSNorm | rotary, base 1,000,000 | SwiGLU, 8/3 d_model | no | yes |

llama3 is llama with longer wavelengths, for longer texts; both are the architecture that Hugging Face calls
llama. Llama 3.1 also stretches them: `model.rope_scaling`.

Sources: GPT-2 (Radford et al. 2019), Llama (arXiv 2302.13971), Llama 3 (arXiv 2407.21783), Qwen3 (arXiv
2505.09388). This module imports no torch.
"""

from dataclasses import dataclass
from typing import Literal

from hornbook.errors import UserError
from hornbook.recipe_data import ModelSection, RopeScalingSection

Architecture = Literal["gpt2", "llama", "qwen3"]

ROPE_THETA = {"gpt2": 10_000.0, "llama": 10_000.0, "llama3": 500_000.0, "qwen3": 1_000_000.0}
"""Each preset's base of the rotary wavelengths. GPT-2 has none, and never reads it."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what the weights are called, their shapes and what is computed with them.

    window_tokens: for each layer, how many tokens each token sees, itself included; None: all before it.
    """

    architecture: Architecture
    vocab_size: int
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    max_seq_len: int
    window_tokens: tuple[int | None, ...]
    norm: Literal["layernorm", "rmsnorm"]
    norm_eps: float
    positions: Literal["learned", "rotary"]
    rope_theta: float
    rope_scaling: RopeScalingSection | None
    activation: Literal["gelu", "swiglu"]
    attention_bias: bool
    mlp_bias: bool
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

    Raises `UserError` where the preset's layout on disk cannot hold what the recipe asks for, so that every
    model can be exported as it is.
    """
    is_gpt2, is_qwen3 = section.preset == "gpt2", section.preset == "qwen3"
    head_dim = section.head_dim or section.d_model // section.n_heads
    n_kv_heads = section.n_kv_heads or section.n_heads
    attention_bias = is_gpt2 if section.attention_bias is None else section.attention_bias
    mlp_bias = is_gpt2 if section.mlp_bias is None else section.mlp_bias
    if is_gpt2:
        _refuse_unless("n_kv_heads", n_kv_heads, n_kv_heads == section.n_heads, "gpt2", f"n_heads ({section.n_heads})")
        is_even_split = head_dim * section.n_heads == section.d_model
        widths = f"d_model / n_heads ({section.d_model} / {section.n_heads})"
        _refuse_unless("head_dim", head_dim, is_even_split, "gpt2", widths)
        _refuse_unless("attention_bias", "false", attention_bias, "gpt2", "a bias everywhere")
        _refuse_unless("mlp_bias", "false", mlp_bias, "gpt2", "a bias everywhere")
        _refuse_unless("rope_scaling", "set", section.rope_scaling is None, "gpt2", "learned positions")
    if is_qwen3:
        _refuse_unless("mlp_bias", "true", not mlp_bias, "qwen3", "none")
    else:
        no_window = section.sliding_window is None
        _refuse_unless("sliding_window", section.sliding_window, no_window, section.preset, "full attention")
    return ModelConfig(
        architecture="llama" if section.preset == "llama3" else section.preset,
        vocab_size=vocab_size,
        n_layers=section.n_layers,
        d_model=section.d_model,
        n_heads=section.n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        d_ff=section.d_ff or (4 * section.d_model if is_gpt2 else swiglu_width(section.d_model)),
        max_seq_len=section.max_seq_len,
        window_tokens=tuple(
            None if (layer + 1) % section.full_attention_every == 0 else section.sliding_window
            for layer in range(section.n_layers)
        ),
        norm="layernorm" if is_gpt2 else "rmsnorm",
        norm_eps=1e-6 if is_qwen3 else 1e-5,
        positions="learned" if is_gpt2 else "rotary",
        rope_theta=section.rope_theta or ROPE_THETA[section.preset],
        rope_scaling=section.rope_scaling,
        activation="gelu" if is_gpt2 else "swiglu",
        attention_bias=attention_bias,
        mlp_bias=mlp_bias,
        qk_norm=is_qwen3,
        tie_embeddings=section.tie_embeddings,
    )


def _refuse_unless(field: str, value: object, is_possible: bool, preset: str, needed: str) -> None:
    if not is_possible:
        others = ", ".join(name for name in ROPE_THETA if name != preset)
        raise UserError(
            f"model.{field} is {value}, but the preset {preset} needs {needed}: leave it out, or choose another "
            f"preset that has it ({others})"
        )
