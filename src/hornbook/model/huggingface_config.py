"""`config.json` as Hugging Face's transformers writes and reads it, from and to our `ModelConfig`.

Written small and by hand, so that the project does not need transformers: the settings that decide what is
computed, under the names of transformers 5, with those of the rotary positions also where older readers look
for them (`rope_json` has these). Reading never guesses: what this Transformer does not compute is refused.
"""

from pathlib import Path
from typing import Any, Literal

from hornbook.errors import UserError
from hornbook.model.config import ModelConfig
from hornbook.model.rope_json import Json, rope_from_json, rope_problems, rope_theta, rope_to_json
from hornbook.run_directory import read_json

CONFIG_FILE = "config.json"

_KNOWN_SETTINGS: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}
"""Settings that must have one of these values where they are there at all."""

_FULL, _SLIDING = "full_attention", "sliding_attention"

_INITIALIZER_RANGE = 0.02
"""Only for readers that build the model with new weights: transformers' default. Ours start as init.py says."""


def config_to_json(config: ModelConfig) -> Json:
    """The `config.json` of a model, but for the ids of special tokens and the dtype of its weights."""
    if config.architecture == "gpt2":
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": config.vocab_size,
            "n_positions": config.max_seq_len,
            "n_embd": config.d_model,
            "n_layer": config.n_layers,
            "n_head": config.n_heads,
            "n_inner": config.d_ff,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": config.norm_eps,
            "initializer_range": _INITIALIZER_RANGE,
            "tie_word_embeddings": config.tie_embeddings,
            # transformers drops activations in training unless told not to; our models never do.
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        }
    is_qwen3 = config.architecture == "qwen3"
    return {
        "architectures": ["Qwen3ForCausalLM" if is_qwen3 else "LlamaForCausalLM"],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        **rope_to_json(config),
        "attention_bias": config.attention_bias,
        **(_windows_to_json(config) if is_qwen3 else {"mlp_bias": config.mlp_bias}),
        "initializer_range": _INITIALIZER_RANGE,
        "tie_word_embeddings": config.tie_embeddings,
    }


def read_config(folder: Path) -> ModelConfig:
    """The shape of the model in a folder. Raises `UserError` where there is none, or none that we have."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder}: there is no {CONFIG_FILE} here, which every model in Hugging Face's layout has")
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds no settings by name, as the configuration of a model must")
    return config_from_json(settings, path)


def config_from_json(settings: Json, path: Path) -> ModelConfig:
    """The shape of the model that a `config.json` describes. What it leaves out has transformers' default.

    Raises `UserError`, naming every setting that asks for something which this Transformer does not have.
    """
    kind = settings.get("model_type")
    if kind not in ("gpt2", "llama", "qwen3"):
        raise UserError(f"{path}: the model type is {kind!r}; Hornbook reads gpt2, llama and qwen3, all of them dense")
    problems = [
        f"{name} is {settings[name]!r}; only {' or '.join(map(repr, known))} can be read"
        for name, known in _KNOWN_SETTINGS.items()
        if name in settings and settings[name] not in known
    ]
    if kind != "gpt2":
        problems += rope_problems(settings)
    if kind == "qwen3":
        problems += _window_problems(settings)
    if problems:
        raise UserError(f"{path}: this model has parts that Hornbook lacks:\n  " + "\n  ".join(problems))
    try:
        return _gpt2_config(settings) if kind == "gpt2" else _llama_config(settings, kind)
    except KeyError as missing:
        raise UserError(f"{path}: the setting {missing} is missing") from None


def _gpt2_config(settings: Json) -> ModelConfig:
    d_model, n_heads = settings.get("n_embd", 768), settings.get("n_head", 12)
    return ModelConfig(
        architecture="gpt2",
        vocab_size=settings.get("vocab_size", 50257),
        n_layers=settings.get("n_layer", 12),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=d_model // n_heads,
        d_ff=settings.get("n_inner") or 4 * d_model,
        max_seq_len=settings.get("n_positions", 1024),
        window_tokens=(None,) * settings.get("n_layer", 12),
        norm="layernorm",
        norm_eps=settings.get("layer_norm_epsilon", 1e-5),
        positions="learned",
        rope_theta=10_000.0,
        rope_scaling=None,
        activation="gelu",
        attention_bias=True,
        mlp_bias=True,
        qk_norm=False,
        tie_embeddings=settings.get("tie_word_embeddings", True),
    )


def _llama_config(settings: Json, kind: Literal["llama", "qwen3"]) -> ModelConfig:
    d_model, n_heads = settings["hidden_size"], settings["num_attention_heads"]
    return ModelConfig(
        architecture=kind,
        vocab_size=settings["vocab_size"],
        n_layers=settings["num_hidden_layers"],
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=settings.get("num_key_value_heads") or n_heads,
        head_dim=settings.get("head_dim") or (128 if kind == "qwen3" else d_model // n_heads),
        d_ff=settings["intermediate_size"],
        max_seq_len=settings["max_position_embeddings"],
        window_tokens=_windows(settings) if kind == "qwen3" else (None,) * settings["num_hidden_layers"],
        norm="rmsnorm",
        norm_eps=settings.get("rms_norm_eps", 1e-6),
        positions="rotary",
        rope_theta=rope_theta(settings),
        rope_scaling=rope_from_json(settings),
        activation="swiglu",
        attention_bias=settings.get("attention_bias", False),
        mlp_bias=kind == "llama" and settings.get("mlp_bias", False),
        qk_norm=kind == "qwen3",
        tie_embeddings=settings.get("tie_word_embeddings", False),
    )


def _windows_to_json(config: ModelConfig) -> Json:
    windows = [window for window in config.window_tokens if window is not None]
    if not windows:
        return {"use_sliding_window": False}
    return {
        "use_sliding_window": True,
        "sliding_window": windows[0],
        "layer_types": [_FULL if window is None else _SLIDING for window in config.window_tokens],
    }


def _windows(settings: Json) -> tuple[int | None, ...]:
    window = settings.get("sliding_window", 4096) if settings.get("use_sliding_window") else None
    return tuple(window if kind == _SLIDING else None for kind in _layer_types(settings))


def _window_problems(settings: Json) -> list[str]:
    """transformers computes no window where it is not switched on, and fails on a layer that asks for one."""
    kinds = set(_layer_types(settings)) - {_FULL}
    has_window = settings.get("use_sliding_window") and settings.get("sliding_window", 4096) is not None
    if has_window:
        kinds -= {_SLIDING}
    return [f"layer_types has {kind}, which cannot be read here" for kind in sorted(kinds)]


def _layer_types(settings: Json) -> list[str]:
    """As transformers has them; older files only say from which layer on there are windows."""
    n_layers, first = settings.get("num_hidden_layers", 0), settings.get("max_window_layers", 28)
    slides = bool(settings.get("use_sliding_window")) and settings.get("sliding_window", 4096) is not None
    derived = [_SLIDING if slides and layer >= first else _FULL for layer in range(n_layers)]
    return settings.get("layer_types") or derived
