"""Models to and from Hugging Face's layout: `config.json`, `generation_config.json` and safetensors files.

What is written loads with a plain `AutoModelForCausalLM.from_pretrained`, as LlamaForCausalLM,
Qwen3ForCausalLM or GPT2LMHeadModel, with no code of ours. Our weights carry Llama's names already, so Llama
and Qwen3 are copied as they are. GPT-2 has names of its own, keeps query, key and value in one matrix, and
stores its matrices transposed.

`huggingface_config` writes and reads the configuration, `weight_files` the files; here are the weights. Both
directions walk the same table (`_entries`), so they cannot drift apart. What a file must hold is found by sending
the shapes of an empty model through the same table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hornbook.errors import UserError
from hornbook.model.config import ModelConfig
from hornbook.model.huggingface_config import CONFIG_FILE, config_to_json, read_config
from hornbook.model.transformer import Transformer
from hornbook.model.weight_files import MAX_SHARD_BYTES, read_weights, write_weights
from hornbook.run_directory import write_json

GENERATION_FILE = "generation_config.json"


def save_pretrained(
    model: Transformer,
    directory: Path,
    end_of_text_id: int,
    pad_id: int,
    end_of_turn_id: int | None = None,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write the model for `AutoModelForCausalLM.from_pretrained(directory)`.

    A model that was taught to converse ends its turns with `end_of_turn_id`; generation by others then stops
    there too. Tied embeddings are stored once. Weights of more than `max_shard_bytes` are spread over files of
    at most that size, with an index.
    """
    tensors = to_hugging_face(model.state_dict(), model.config)
    stored = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    special_ids = {"bos_token_id": end_of_text_id, "eos_token_id": end_of_text_id, "pad_token_id": pad_id}
    stop_ids = end_of_text_id if end_of_turn_id is None else [end_of_text_id, end_of_turn_id]
    config = config_to_json(model.config) | special_ids | {"dtype": str(dtype).removeprefix("torch.")}
    write_weights(directory, stored, max_shard_bytes)
    write_json(directory / GENERATION_FILE, special_ids | {"eos_token_id": stop_ids})
    write_json(directory / CONFIG_FILE, config)


def load_pretrained(directory: Path) -> Transformer:
    """Read a model that we or Hugging Face's transformers saved; its weights are float32, on the CPU.

    Raises `UserError` where files are missing or broken, the architecture or a feature of it is not ours, or
    the weights are not those that the configuration needs: all of them are named.
    """
    config = read_config(directory)
    tensors = _usual_names(read_weights(directory), config)
    with torch.device("meta"):
        model = Transformer(config)
    _check_weights(tensors, to_hugging_face(model.state_dict(), config), directory)
    weights = from_hugging_face({name: tensor.float() for name, tensor in tensors.items()}, config)
    model.load_state_dict(weights, assign=True)
    return model


@dataclass(frozen=True)
class _Entry:
    """One tensor of a Hugging Face file: our parameters below one another in it, transposed or not."""

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False


def to_hugging_face(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our state dict under Hugging Face's names and in its shapes."""
    tensors = {}
    for entry in _entries(config, tuple(weights)):
        parts = [weights[name] for name in entry.ours]
        fused = parts[0] if len(parts) == 1 else torch.cat(parts)
        tensors[entry.theirs] = fused.T if entry.transposed else fused
    return tensors


def from_hugging_face(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The inverse of `to_hugging_face`."""
    with torch.device("meta"):
        shapes = Transformer(config).state_dict()
    weights: dict[str, Tensor] = {}
    for entry in _entries(config, tuple(shapes)):
        fused = tensors[entry.theirs].T if entry.transposed else tensors[entry.theirs]
        parts = fused.split([shapes[name].shape[0] for name in entry.ours])
        weights |= {name: part.contiguous() for name, part in zip(entry.ours, parts, strict=True)}
    return weights


_GPT2_NAMES = {
    "model.embed_tokens": "transformer.wte",
    "model.embed_positions": "transformer.wpe",
    "model.norm": "transformer.ln_f",
    "model.layers": "transformer.h",
    "input_layernorm": "ln_1",
    "self_attn.o_proj": "attn.c_proj",
    "post_attention_layernorm": "ln_2",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}


def _entries(config: ModelConfig, names: tuple[str, ...]) -> Iterator[_Entry]:
    """The key map, for all our parameter names."""
    for name in names:
        if config.architecture != "gpt2":
            yield _Entry(name, (name,))
        elif ".q_proj." in name:
            theirs = _renamed(name).replace("self_attn.q_proj", "attn.c_attn")
            parts = tuple(name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj"))
            yield _Entry(theirs, parts, transposed=name.endswith("weight"))
        elif ".k_proj." not in name and ".v_proj." not in name:
            yield _Entry(_renamed(name), (name,), transposed=name.endswith("_proj.weight"))


def _renamed(name: str) -> str:
    for ours, theirs in _GPT2_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _usual_names(tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Undo what older files do differently.

    They store buffers that follow from the configuration, a second copy of tied embeddings, and, in OpenAI's
    GPT-2, leave out the first part of the names.
    """
    buffers = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(buffers)}
    if config.tie_embeddings:
        tensors.pop("lm_head.weight", None)
    if config.architecture == "gpt2":
        whole = ("transformer.", "lm_head.")
        tensors = {n if n.startswith(whole) else f"transformer.{n}": tensor for n, tensor in tensors.items()}
    return tensors


def _check_weights(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], directory: Path) -> None:
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is not expected" for name in tensors if name not in expected]
    problems += [
        f"{name} has the shape {tuple(tensors[name].shape)}, not {tuple(wanted.shape)}"
        for name, wanted in expected.items()
        if name in tensors and tensors[name].shape != wanted.shape
    ]
    if problems:
        raise UserError(f"{directory}: the weights do not fit {CONFIG_FILE}:\n  " + "\n  ".join(problems))
