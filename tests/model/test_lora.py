"""Adapters begin as nothing, learn beside frozen weights, merge into them, and are what PEFT reads."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hornbook.errors import UserError
from hornbook.model.config import config_from_recipe
from hornbook.model.huggingface import save_pretrained
from hornbook.model.init import init_weights
from hornbook.model.lora import attach_lora, load_lora, merge_lora, save_lora, trained_fraction
from hornbook.model.transformer import Transformer
from hornbook.model.vocabulary import with_vocabulary_of
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import LoraSection, TrainingSection
from hornbook.training.optimizers import build_optimizer

VOCAB_SIZE = 40
SECTION = LoraSection(rank=2, alpha=6.0)
IDS = torch.arange(12)[None]


NEW = range(VOCAB_SIZE, VOCAB_SIZE + 3)
TRAINING = TrainingSection(tokens=64, global_batch_tokens=64, optimizer="adamw", lr=0.1, weight_decay=0.5)


def make_model(preset: str = "llama", **fields: Any) -> Transformer:
    section = ModelSection(preset=preset, n_layers=2, d_model=32, n_heads=2, max_seq_len=16, **fields)
    model = Transformer(config_from_recipe(section, VOCAB_SIZE))
    init_weights(model, seed=5)
    return model


def learn_something(model: Transformer) -> None:
    """Adapters with weights as training might leave them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or ".rows." in name:
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


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [True, False])
def test_of_embedding_and_head_only_the_rows_of_new_tokens_learn(tied: bool, optimizer: str) -> None:
    model = with_vocabulary_of(make_model(tie_embeddings=tied), NEW.stop)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = logits(model)
    attach_lora(model, SECTION, seed=1, new_tokens=NEW)
    assert torch.equal(logits(model), before)
    steps = build_optimizer(model, TRAINING.model_copy(update={"optimizer": optimizer}))
    for ids in (IDS, torch.tensor([NEW])):
        scores = model.logits(model(ids))
        scores.logsumexp(-1).sum().backward()
        steps.step()
        steps.zero_grad()
    merge_lora(model)
    assert set(model.state_dict()) == set(own)
    for name in ("model.embed_tokens.weight", "lm_head.weight") if not tied else ("model.embed_tokens.weight",):
        now = model.state_dict()[name]
        assert torch.equal(now[: NEW.start], own[name][: NEW.start])
        assert (now[NEW.start :] != own[name][NEW.start :]).any(1).all()


def test_tokens_in_rows_to_spare_learn_where_they_are() -> None:
    model = make_model()
    own = model.model.embed_tokens.weight.clone()
    attach_lora(model, SECTION, seed=1, new_tokens=range(30, 32))
    learn_something(model)
    before = logits(model)
    merge_lora(model)
    torch.testing.assert_close(logits(model), before)
    changed = (model.model.embed_tokens.weight != own).any(1)
    assert changed.nonzero().flatten().tolist() == [30, 31]


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_new_tokens_come_back_from_disk(tied: bool, tmp_path: Path) -> None:
    model = with_vocabulary_of(make_model(tie_embeddings=tied), NEW.stop)
    attach_lora(model, SECTION, seed=1, new_tokens=NEW)
    learn_something(model)
    save_lora(model, SECTION, tmp_path, "base")
    with pytest.raises(UserError, match="rows of tokens up to 42, but the model has only 40 rows"):
        load_lora(make_model(tie_embeddings=tied), tmp_path)
    again = with_vocabulary_of(make_model(tie_embeddings=tied), NEW.stop)
    load_lora(again, tmp_path)
    assert torch.equal(logits(again), logits(model))


def test_new_rows_differ_a_little_and_are_the_same_every_time() -> None:
    one, again = (with_vocabulary_of(make_model(), NEW.stop).model.embed_tokens.weight for _ in range(2))
    old, new = one[: NEW.start], one[NEW.start :]
    assert torch.equal(one, again)
    assert len(set(map(tuple, new.tolist()))) == len(NEW)
    assert 0 < (new - old.mean(0)).std() < 0.2 * old.std()


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


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_peft_puts_the_rows_of_new_tokens_into_a_base_with_room_for_them(tied: bool, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed, so it cannot judge")
    from transformers import AutoModelForCausalLM

    model = make_model(tie_embeddings=tied)
    save_pretrained(model, tmp_path / "base", end_of_text_id=0, pad_id=1)
    model = with_vocabulary_of(model, NEW.stop)
    attach_lora(model, SECTION, seed=1, new_tokens=NEW)
    learn_something(model)
    save_lora(model, SECTION, tmp_path / "adapter", str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(NEW.stop)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    ids = torch.tensor([[*range(8), *NEW]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model.logits(model(ids)), rtol=1e-5, atol=1e-5)
