"""transformers is the judge here, and is imported nowhere else in the project."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from hornbook.errors import UserError
from hornbook.model.huggingface import load_pretrained, save_pretrained, to_hugging_face
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import RopeScalingSection
from hornbook.runtime import torch_generator

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"preset": "gpt2"},
    "gpt2 untied": {"preset": "gpt2", "tie_embeddings": False, "d_ff": 40},
    "llama multi-head": {"preset": "llama"},
    "llama grouped-query, untied": {"preset": "llama", "n_kv_heads": 2, "tie_embeddings": False},
    "llama multi-query": {"preset": "llama", "n_kv_heads": 1, "rope_theta": 500.0},
    "llama with biases": {"preset": "llama", "attention_bias": True, "mlp_bias": True},
    "llama with attention's bias": {"preset": "llama", "attention_bias": True},
    "llama3 stretched": {"preset": "llama3", "rope_scaling": RopeScalingSection(factor=4.0, original_max_seq_len=16)},
    "llama3 by yarn": {
        "preset": "llama3",
        "head_dim": 16,
        "rope_theta": 100.0,
        "rope_scaling": RopeScalingSection(type="yarn", factor=4.0, original_max_seq_len=64, beta_fast=4.0),
    },
    "qwen3 grouped-query, wide heads": {"preset": "qwen3", "n_kv_heads": 2, "head_dim": 16},
    "qwen3 with a sliding window": {"preset": "qwen3", "sliding_window": 5, "full_attention_every": 2},
    "qwen3 with attention's bias": {"preset": "qwen3", "attention_bias": True},
}
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def read_by_transformers(directory: Path) -> transformers.PreTrainedModel:
    model, report = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model


@EVERY_SHAPE
def test_transformers_gives_our_logits_from_our_files(
    shape: dict[str, Any], make_model: Callable[..., Transformer], token_ids: torch.Tensor, tmp_path: Path
):
    model = make_model(**shape)
    save_pretrained(model, tmp_path, end_of_text_id=60, pad_id=59)
    theirs = read_by_transformers(tmp_path)
    assert type(theirs).__name__.lower().startswith(model.config.architecture)
    torch.testing.assert_close(theirs(token_ids).logits, model.logits(model(token_ids)), rtol=0, atol=1e-4)


@EVERY_SHAPE
def test_we_give_the_logits_of_transformers_from_its_files(
    shape: dict[str, Any], make_model: Callable[..., Transformer], token_ids: torch.Tensor, tmp_path: Path
):
    save_pretrained(make_model(**shape), tmp_path / "ours", end_of_text_id=60, pad_id=59)
    theirs = read_by_transformers(tmp_path / "ours")
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3, generator=torch_generator("other weights"))
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    model = load_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(model.logits(model(token_ids)), theirs(token_ids).logits, rtol=0, atol=1e-4)


@EVERY_SHAPE
def test_our_gradients_are_those_of_transformers(
    shape: dict[str, Any], make_model: Callable[..., Transformer], token_ids: torch.Tensor, tmp_path: Path
):
    model = make_model(**shape)
    save_pretrained(model, tmp_path, end_of_text_id=60, pad_id=59)
    theirs = read_by_transformers(tmp_path)
    for logits in (model.logits(model(token_ids)), theirs(token_ids).logits):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten()).backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    renamed = to_hugging_face(ours, model.config)
    assert renamed.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (renamed[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


@EVERY_SHAPE
def test_a_model_comes_back_as_it_was_saved(
    shape: dict[str, Any], make_model: Callable[..., Transformer], tmp_path: Path
):
    model = make_model(**shape)
    save_pretrained(model, tmp_path, end_of_text_id=60, pad_id=59)
    loaded = load_pretrained(tmp_path)
    assert loaded.config == model.config
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_tied_embeddings_are_stored_once(make_model: Callable[..., Transformer], tmp_path: Path):
    save_pretrained(make_model(tie_embeddings=True), tmp_path, end_of_text_id=60, pad_id=59)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


def test_the_special_tokens_reach_transformers(make_model: Callable[..., Transformer], tmp_path: Path):
    save_pretrained(make_model(), tmp_path, end_of_text_id=60, pad_id=59, end_of_turn_id=58)
    generation = read_by_transformers(tmp_path).generation_config
    assert (generation.eos_token_id, generation.pad_token_id) == ([60, 58], 59)


def test_the_older_files_of_gpt2_can_be_read(make_model: Callable[..., Transformer], tmp_path: Path):
    """OpenAI's files leave out the first part of the names and store the causal mask as a weight."""
    model = make_model(preset="gpt2")
    save_pretrained(model, tmp_path, end_of_text_id=60, pad_id=59)
    tensors = load_file(tmp_path / "model.safetensors")
    older = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(older | {"h.0.attn.bias": torch.ones(1, 1, 48, 48)}, tmp_path / "model.safetensors")
    torch.testing.assert_close(dict(load_pretrained(tmp_path).state_dict()), dict(model.state_dict()), rtol=0, atol=0)


def test_all_problems_of_the_weights_are_named_at_once(make_model: Callable[..., Transformer], tmp_path: Path):
    save_pretrained(make_model(), tmp_path, end_of_text_id=60, pad_id=59)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.extra"] = torch.zeros(1)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 4)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as problem:
        load_pretrained(tmp_path)
    message = str(problem.value)
    assert "model.norm.weight is missing" in message
    assert "model.extra is not expected" in message
    assert "model.layers.1.mlp.up_proj.weight has the shape (3, 4), not (128, 32)" in message


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"model_type": "mamba"}, "the model type is 'mamba'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"model_type": "qwen3_moe"}, "the model type is 'qwen3_moe'; .* all of them dense"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "factor of the rotary positions is missing"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 0.5}}, "factor of the rotary positions: .* greater"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "truncate of the rotary"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "the same for all layers"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor of the rotary positions is 0.5"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 2}, "layer_types has sliding_attention"),
        ({"model_type": "qwen3", "layer_types": ["chunked_attention"] * 2}, "layer_types has chunked_attention"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(
    settings: dict[str, Any], complaint: str, make_model: Callable[..., Transformer], tmp_path: Path
):
    save_pretrained(make_model(), tmp_path, end_of_text_id=60, pad_id=59)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(UserError, match=complaint):
        load_pretrained(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no config\.json here"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("setting", ["hidden_size", "vocab_size", "max_position_embeddings"])
def test_a_setting_that_has_no_default_must_be_there(
    setting: str, make_model: Callable[..., Transformer], tmp_path: Path
):
    save_pretrained(make_model(), tmp_path, end_of_text_id=60, pad_id=59)
    config = json.loads((tmp_path / "config.json").read_text())
    del config[setting]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"the setting '{setting}' is missing"):
        load_pretrained(tmp_path)


def test_a_cut_off_file_is_refused(make_model: Callable[..., Transformer], tmp_path: Path):
    save_pretrained(make_model(), tmp_path, end_of_text_id=60, pad_id=59)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["[]", "5", '"llama"'])
def test_a_configuration_that_is_no_table_is_refused(content: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config.json: holds no settings by name"):
        load_pretrained(tmp_path)


def test_a_folder_in_the_place_of_the_weights_is_refused(make_model: Callable[..., Transformer], tmp_path: Path):
    save_pretrained(make_model(), tmp_path, end_of_text_id=60, pad_id=59)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UserError, match=r"model.safetensors: this is not a file that can be read \("):
        load_pretrained(tmp_path)


def test_an_index_that_is_no_table_is_refused(make_model: Callable[..., Transformer], tmp_path: Path):
    save_pretrained(make_model(), tmp_path, end_of_text_id=60, pad_id=59)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(UserError, match="names no files of its own folder"):
        load_pretrained(tmp_path)
