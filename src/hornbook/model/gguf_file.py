"""A model as one GGUF file, which llama.cpp and what is built on it (Ollama, LM Studio) load, tokenizer included.

The layout is llama.cpp's (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): settings under the name of
the architecture, and tensors `blk.0.attn_q.weight`. Two things differ from Hugging Face's files. GPT-2's
matrices lie as ours do, with query, key and value below one another. And llama.cpp turns the neighbours 2i
and 2i + 1 of a Llama's queries and keys together, as the paper on rotary positions has it, so the rows of these
projections are put into that order; for Qwen3 it turns i and i + head_dim/2, as we do.

Weights are written as float32, nothing rounded: `llama-quantize` makes smaller files of this one.

What llama.cpp would compute differently for a model is refused here: a file that loads and then writes something
else would be worse than none.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import torch
from torch import Tensor

from hornbook.errors import UserError
from hornbook.model.config import ModelConfig
from hornbook.model.gguf_tokenizer import GgufTokenizer
from hornbook.model.rotary import rotary_frequencies
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import RopeScalingSection
from hornbook.run_directory import sync_folder

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.embed_positions": "position_embd",
    "model.layers": "blk",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def save_gguf(model: Transformer, tokenizer: GgufTokenizer, path: Path, name: str) -> None:
    """Write the model and its tokenizer to `path`. `name` is what programs show for it.

    Raises UserError, naming every part of the model that the format, or llama.cpp, has no place for.
    """
    config = model.config
    problems = list(_problems(config))
    if problems:
        raise UserError(f"{path}: a GGUF file cannot hold this model: {'; '.join(problems)}. Export it as hf.")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    writer = gguf.GGUFWriter(temporary, config.architecture)
    try:
        writer.add_name(name)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        _add_shape(writer, config)
        tokenizer.add_to(writer, config.vocab_size)
        for tensor_name, tensor in gguf_tensors(model):
            writer.add_tensor(tensor_name, tensor.detach().float().cpu().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(temporary, path)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def gguf_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the file, under llama.cpp's name."""
    config, weights = model.config, model.state_dict()
    for name, tensor in weights.items():
        if config.architecture == "gpt2" and ".q_proj." in name:
            parts = [weights[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            yield _renamed(name).replace("attn_q", "attn_qkv"), torch.cat(parts)
        elif config.architecture == "gpt2" and (".k_proj." in name or ".v_proj." in name):
            continue
        elif config.architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            yield _renamed(name), _neighbours_paired(tensor, config.head_dim)
        else:
            yield _renamed(name), tensor
    if config.rope_scaling is not None and config.rope_scaling.type == "llama3":
        yield "rope_freqs.weight", _divisors(config)


def _renamed(name: str) -> str:
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _neighbours_paired(rows: Tensor, head_dim: int) -> Tensor:
    """Rows i and i + head_dim/2 of each head become 2i and 2i + 1."""
    heads = rows.unflatten(0, (-1, 2, head_dim // 2))
    return heads.transpose(1, 2).flatten(0, 2)


def _divisors(config: ModelConfig) -> Tensor:
    """By what Llama 3.1's rule divides the frequency of each pair; llama.cpp has no other setting for it."""
    cpu = torch.device("cpu")
    return rotary_frequencies(replace(config, rope_scaling=None), cpu) / rotary_frequencies(config, cpu)


def _add_shape(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    if config.architecture == "gpt2":
        writer.add_layer_norm_eps(config.norm_eps)
        return
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling is not None and config.rope_scaling.type == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(config.rope_scaling.original_max_seq_len)


def _problems(config: ModelConfig) -> Iterator[str]:
    if any(config.window_tokens):
        yield "llama.cpp knows no sliding window for qwen3"
    if config.architecture != "gpt2" and (config.attention_bias or config.mlp_bias):
        yield f"not every program that reads the format knows biases for {config.architecture}"
    scaling = config.rope_scaling
    if scaling is None:
        return
    if scaling.type == "llama3" and config.architecture != "llama":
        yield "llama.cpp knows Llama 3.1's stretched positions for llama alone"
    plain = RopeScalingSection(type="yarn", factor=scaling.factor, original_max_seq_len=scaling.original_max_seq_len)
    if scaling.type == "yarn" and scaling != plain:
        yield "YaRN's beta_fast, beta_slow and attention_factor must have their usual values"
