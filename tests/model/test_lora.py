"""Adapters begin as nothing, learn beside frozen weights, merge into them, and are what PEFT reads."""

from pathlib import Path

import pytest
import torch

from hornbook.errors import UserError
from hornbook.model.config import config_from_recipe
from hornbook.model.huggingface import save_pretrained
from hornbook.model.init import init_weights
from hornbook.model.lora import attach_lora, load_lora, merge_lora, save_lora, trained_fraction
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import LoraSection

VOCAB_SIZE = 40
SECTION = LoraSection(rank=2, alpha=6.0)
IDS = torch.arange(12)[None]


def make_model(preset: str = "llama") -> Transformer:
    section = ModelSection(preset=preset, n_layers=2, d_model=32, n_heads=2, max_seq_len=16)
    model = Transformer(config_from_recipe(section, VOCAB_SIZE))
    init_weights(model, seed=5)
    return model


def learn_something(model: Transformer) -> None:
    """Adapters with weights as training might leave them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)


def logits(model: Transformer) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(IDS))


@pytest.mark.parametrize("preset", ["llama", "qwen3", "gpt2"])
def test_a_model_with_new_adapters_is_the_model_it_was(preset: str) -> None:
    model = make_model(preset)
    before = logits(model)
    attach_lora(model, SECTION, seed=1)
    assert torch.equal(logits(model), before)


def test_the_models_own_weights_keep_their_names_and_are_frozen() -> None:
    model = make_model()
    own = set(model.state_dict())
    attach_lora(model, SECTION, seed=1)
    assert own < set(model.state_dict())
    model.logits(model(IDS)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        assert (parameter.grad is not None) == ("lora_" in name)
    assert 0 < trained_fraction(model) < 0.3


def test_a_merged_model_computes_the_same_and_knows_of_no_adapters() -> None:
    model = make_model("gpt2").double()
    attach_lora(model, SECTION, seed=1)
    learn_something(model)
    before = logits(model)
    merge_lora(model)
    assert set(model.state_dict()) == set(make_model("gpt2").state_dict())
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(logits(model), before, rtol=1e-10, atol=1e-10)


def test_only_the_named_matrices_get_an_adapter() -> None:
    model = make_model()
    attach_lora(model, LoraSection(targets=("v_proj",)), seed=1)
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in model.state_dict() if "lora_" in name}
    assert adapted == {"v_proj"}


def test_targets_that_are_nowhere_are_refused() -> None:
    with pytest.raises(UserError, match=r"lora\.targets: the model has no gate_proj"):
        attach_lora(make_model("gpt2"), LoraSection(targets=("gate_proj",)), seed=1)


def test_adapters_come_back_from_disk(tmp_path: Path) -> None:
    model = make_model()
    attach_lora(model, SECTION, seed=1)
    learn_something(model)
    save_lora(model, SECTION, tmp_path, "base")
    again = make_model()
    load_lora(again, tmp_path)
    assert torch.equal(logits(again), logits(model))


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    model = make_model()
    attach_lora(model, SECTION, seed=1)
    save_lora(model, SECTION, tmp_path, "base")
    with pytest.raises(UserError, match="these adapters do not fit the model"):
        load_lora(make_model("gpt2"), tmp_path)


def test_gpt2s_layout_has_no_place_for_adapters(tmp_path: Path) -> None:
    model = make_model("gpt2")
    attach_lora(model, SECTION, seed=1)
    with pytest.raises(UserError, match="no place in PEFT's layout"):
        save_lora(model, SECTION, tmp_path, "base")


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["llama", "qwen3"])
def test_peft_loads_the_adapters_and_gives_the_same_logits(preset: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed, so it cannot judge")
    from transformers import AutoModelForCausalLM

    model = make_model(preset)
    save_pretrained(model, tmp_path / "base", end_of_text_id=0, pad_id=1)
    attach_lora(model, SECTION, seed=1)
    learn_something(model)
    save_lora(model, SECTION, tmp_path / "adapter", str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, logits(model), rtol=1e-5, atol=1e-5)
