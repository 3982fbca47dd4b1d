"""What pretraining leaves for the book's pictures is the model's own doing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.model.config import config_from_recipe
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.planning.memory import training_memory
from hornbook.recipe import EvaluateSection, Recipe
from hornbook.recipe_data import ModelSection
from hornbook.recipe_training import PretrainSection
from hornbook.run_directory import read_json
from hornbook.stages.pictures import attention_weights, leave_pictures, sample_evaluators
from hornbook.stages.step_memory import memory_record
from hornbook.tokenizer.tokenizer import Tokenizer

PEOPLE, DEEDS = ["Mira", "Ned", "Isla", "Ella"], ["took", "gave", "found", "left", "lost", "kept", "sold", "hid"]
THINGS, COLOURS = ["kite", "lamp", "jug", "book", "hat", "box", "shoe", "ball"], ["red", "blue"]
TEXTS = [
    f"{who} {deed} the {thing}. Now {who} has the {thing}. The {thing} is {colour}. Who has the {colour} {thing} now?"
    for who in PEOPLE for deed in DEEDS for thing in THINGS for colour in COLOURS
]  # fmt: skip
SECTION = PretrainSection(tokens=4096, global_batch_tokens=128, row_tokens=32, compile=False, precision="float32")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 340, "gpt2")


@pytest.fixture(scope="module")
def documents(tokenizer) -> MemoryDocuments:
    return MemoryDocuments([DocumentTokens(tokenizer.encode(text), len(text), None) for text in TEXTS])


@pytest.fixture(params=["qwen3", "gpt2"])
def model(request, tokenizer) -> Transformer:
    shape = ModelSection(preset=request.param, n_layers=2, d_model=16, n_heads=4, max_seq_len=32)
    model = Transformer(config_from_recipe(shape, tokenizer.vocab_size))
    init_weights(model, seed=1)
    return model.eval()


def test_attention_is_what_the_layers_compute(model, tokenizer) -> None:
    ids = tokenizer.encode(TEXTS[0])[:20]
    outputs = []
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(lambda attention, inputs, output: outputs.append((inputs[0], output)))
    weights = attention_weights(model, ids)

    for layer, table_HTT, (x_BTD, output_BTD) in zip(model.model.layers, weights, outputs, strict=True):
        attention = layer.self_attn
        v_BKTE = attention.v_proj(x_BTD).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        v_BHTE = v_BKTE.repeat_interleave(len(table_HTT) // v_BKTE.shape[1], dim=1)
        mixed = attention.o_proj((table_HTT[None] @ v_BHTE).transpose(1, 2).flatten(2))
        assert torch.allclose(mixed, output_BTD, atol=1e-5)


def test_the_files_are_there_and_name_what_the_text_has(model, tokenizer, documents, tmp_path: Path) -> None:
    leave_pictures(tmp_path, model, tokenizer, documents, SECTION, rows_at_once=4)
    attention, embeddings, tokens = (
        read_json(tmp_path / f"{name}.json") for name in ("attention", "embeddings", "tokens")
    )

    assert "".join(attention["tokens"]) in "".join(text + " " for text in TEXTS)
    assert len(attention["heads"]) == 2 * 4
    assert sum(tokens["in_vocabulary"]) == tokenizer.vocab_size - len(tokenizer.special_ids)
    assert sum(n * times for n, times in zip(tokens["of_bytes"], tokens["in_text"], strict=True)) == sum(
        map(len, TEXTS)
    )
    for drawn in attention["maps"]:
        assert [len(row) for row in drawn["weights"]] == list(range(1, len(attention["tokens"]) + 1))
        assert all(sum(row) == pytest.approx(1, abs=0.02) for row in drawn["weights"])
        habits = [one["habits"][drawn["habit"]] for one in attention["heads"]]
        chosen = next(h for h in attention["heads"] if (h["layer"], h["head"]) == (drawn["layer"], drawn["head"]))
        assert chosen["habits"][drawn["habit"]] == max(habits)
    rows = model.model.embed_tokens.weight.detach().double().numpy()
    for one in embeddings["neighbours"]:
        word, nearest = (rows[tokenizer.encode(f" {name}")[0]] for name in (one["word"], one["neighbours"][0]["word"]))
        cosine = word @ nearest / np.linalg.norm(word) / np.linalg.norm(nearest)
        assert one["neighbours"][0]["cosine"] == pytest.approx(cosine, abs=6e-4)


def test_the_memory_of_a_step_is_near_the_plan(model, documents) -> None:
    measured = memory_record(model, documents, SECTION, 4, pad_id=0)
    planned = training_memory(model.config, SECTION, measured["rows"], "cpu")

    assert measured["rows"] == 4
    for part in ("weights", "gradients", "optimizer"):
        assert measured["bytes"][part] == getattr(planned, part)
    assert measured["bytes"]["activations"] == pytest.approx(planned.activations, rel=0.25)


def test_a_sample_is_kept_for_each_step_once(model, tokenizer, tmp_path: Path) -> None:
    recipe = Recipe(name="small", evaluate=EvaluateSection(sample_prompts=("Mira took",)))
    write_sample = sample_evaluators(tmp_path, tokenizer, recipe)["samples"]
    for n_lines in (9, 19, 9):  # the third time, a killed run has gone back to its checkpoint
        lines = [json.dumps({"step": step}) + "\n" for step in range(1, n_lines + 1)]
        (tmp_path / "metrics.jsonl").write_text("".join(lines))
        measured = write_sample(model)
    kept = read_json(tmp_path / "samples.json")

    assert kept["prompt"] == "Mira took"
    assert [one["step"] for one in kept["samples"]] == [10]
    assert 0 < measured["distinct_words"] <= 1
    assert sample_evaluators(tmp_path, tokenizer, Recipe(name="x", evaluate=EvaluateSection(sample_prompts=()))) == {}
