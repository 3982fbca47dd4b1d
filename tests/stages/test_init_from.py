"""Training that goes on from a folder in Hugging Face's layout, to its lineage in the export."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from rich.console import Console

from hornbook.cli import main
from hornbook.errors import UserError
from hornbook.model.config import config_from_recipe
from hornbook.model.huggingface import load_pretrained, save_pretrained
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.model.vocabulary import with_vocabulary_of
from hornbook.pipeline import Selection, run_pipeline
from hornbook.planning.plan import plan_recipe
from hornbook.recipe import load_recipe
from hornbook.recipe_data import ModelSection
from hornbook.run_directory import RunDirectory, read_json, sha256_file, write_json
from hornbook.tokenizer.tokenizer import Tokenizer

TEXTS = [f"Once upon a time there was a cat. It had {number} mats and sat on all of them." for number in range(60)]
WriteRecipe = Callable[..., Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little Llama with its tokenizer, whose embedding is two rows short of it."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer.train(TEXTS, 300, "llama3")
    config = config_from_recipe(
        ModelSection(n_layers=1, d_model=32, n_heads=2, max_seq_len=64), tokenizer.vocab_size - 2
    )
    model = Transformer(config)
    init_weights(model, seed=3)
    save_pretrained(model, folder, tokenizer.end_of_text_id, tokenizer.pad_id)
    tokenizer.save(folder)
    write_json(folder / "lineage.json", {"pretrain": {"fingerprint": "of the base"}})
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    talks = [{"instruction": f"Where is mat {number}?", "input": "", "output": "Here."} for number in range(120)]
    (tmp_path / "talks.json").write_text(json.dumps(talks))
    return tmp_path


TRAINING = "row_tokens = 64\ntokens = 256\nglobal_batch_tokens = 128\ncompile = false\nprecision = 'float32'\n"


def run(recipe: Path, to: Path) -> RunDirectory:
    return run_pipeline(load_recipe(recipe), to, Selection(), Console(file=io.StringIO()))


def check_lineage(folder: RunDirectory, stage: str, base: Path) -> None:
    origin = read_json(folder.path / "export" / "lineage.json")[stage]["init_from"]
    assert origin["architecture"] == "llama"
    assert origin["files"]["model.safetensors"] == sha256_file(base / "model.safetensors")
    assert origin["lineage"] == {"pretrain": {"fingerprint": "of the base"}}


def test_pretraining_goes_on_with_the_model_and_its_tokenizer(
    base: Path, files: Path, write_recipe: WriteRecipe
) -> None:
    corpus = f"[corpus]\nsource = 'files:{files}/texts.jsonl'\nvalidation_fraction = 0.2\n[evaluate]\nsuites = []\n"
    # Rates so small that what comes out is what went in.
    rest = f"[pretrain]\ninit_from = '{base}'\nlr = 1e-9\nmuon_lr = 1e-9\n{TRAINING}"
    made = run(write_recipe(rest, corpus), files / "runs")
    before, after = load_pretrained(base), load_pretrained(made.path / "pretrain" / "final")
    assert after.config.vocab_size == before.config.vocab_size + 2
    for name, old in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name][: len(old)], old, rtol=0, atol=1e-6)
    assert sha256_file(made.path / "tokenizer" / "tokenizer.json") == sha256_file(base / "tokenizer.json")
    check_lineage(made, "pretrain", base)
    assert transformers.AutoModelForCausalLM.from_pretrained(made.path / "export").config.vocab_size == 300


def test_a_model_is_fine_tuned_without_any_pretraining(base: Path, files: Path, write_recipe: WriteRecipe) -> None:
    top = "[evaluate]\nsuites = []\n[export]\nformat = 'gguf'\n"
    source = f"source = 'files:{files}/talks.json'\nvalidation_fraction = 0.2\n"
    path = write_recipe(f"[finetune]\ninit_from = '{base}'\n{source}{TRAINING}", top)
    made = run(path, files / "runs")
    assert sorted(folder.name for folder in made.path.iterdir() if folder.is_dir()) == [
        "evaluation",
        "export",
        "finetune",
    ]
    assert (made.path / "export" / "model.gguf").is_file()
    check_lineage(made, "finetune", base)
    kept = (made.path / "finetune" / "stage.json").stat().st_mtime_ns
    run(path, files / "runs")
    assert (made.path / "finetune" / "stage.json").stat().st_mtime_ns == kept
    assert main(["export", str(made.path), "--to", str(files / "out"), "--format", "gguf"]) == 0
    assert (files / "out" / "model.gguf").read_bytes() == (made.path / "export" / "model.gguf").read_bytes()
    assert (files / "out" / "config.json").is_file()


def test_a_gpt2_that_knows_no_conversation_gets_its_tokens(base: Path, files: Path, write_recipe: WriteRecipe) -> None:
    """As published: a tokenizer with one special token, and as many rows in the embedding as it has tokens."""
    table = read_json(base / "tokenizer.json")
    table["added_tokens"] = [token for token in table["added_tokens"] if token["content"] == "<|endoftext|>"]
    n_tokens = len(table["model"]["vocab"]) + 1
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    config = transformers.GPT2Config(vocab_size=n_tokens, eos_token_id=n_tokens - 1, **shape)
    transformers.GPT2LMHeadModel(config).save_pretrained(files / "gpt2")
    write_json(files / "gpt2" / "tokenizer.json", table)
    source = f"source = 'files:{files}/talks.json'\nvalidation_fraction = 0.2\n"
    rest = f"[finetune]\ninit_from = '{files / 'gpt2'}'\n{source}{TRAINING}"
    made = run(write_recipe(rest, "[evaluate]\nsuites = []\n"), files / "runs")
    model = transformers.AutoModelForCausalLM.from_pretrained(made.path / "export")
    reader = transformers.AutoTokenizer.from_pretrained(made.path / "export")
    assert type(model) is transformers.GPT2LMHeadModel
    assert model.config.vocab_size == len(reader) == n_tokens + 5
    ids = reader.apply_chat_template([{"role": "user", "content": "Where?"}], return_dict=False)
    assert reader.convert_ids_to_tokens(ids)[0] == "<|user|>"
    assert ids[0] >= n_tokens


def test_rows_longer_than_the_model_takes_are_refused(base: Path, files: Path, write_recipe: WriteRecipe) -> None:
    source = f"source = 'files:{files}/talks.json'\nvalidation_fraction = 0.2\n"
    training = TRAINING.replace("row_tokens = 64", "row_tokens = 128")
    path = write_recipe(f"[finetune]\ninit_from = '{base}'\n{source}{training}")
    with pytest.raises(UserError, match=r"finetune\.row_tokens: is 128, but the model in .* takes 64 tokens at most"):
        run(path, files / "runs")


@pytest.mark.parametrize(
    ("rest", "complaint"),
    [
        ("[finetune]\ninit_from = 'base'\n{t}[pretrain]\n{t}", "finetune.init_from: starts from another model"),
        ("[model]\nn_layers = 3\n[pretrain]\ninit_from = 'base'\n{t}", "model: must be left out: base has its own"),
        ("[model]\ndepth = 3\n[pretrain]\ninit_from = 'base'\n{t}", "model: must be left out: base has its own"),
        ("[tokenizer]\nvocab_size = 999\n[pretrain]\ninit_from = 'base'\n{t}", "tokenizer: must be left out"),
        (
            "[pretrain]\ninit_from = 'base'\ntokens = 256\nglobal_batch_tokens = 256\n",
            "pretrain.row_tokens: must be given, since only base knows",
        ),
        ("[finetune]\n{t}", "pretrain: is missing"),
        ("[preference]\ninit_from = 'base'\n{t}[classify]\n{t}", "classify: starts from what pretrain or finetune"),
    ],
)
def test_a_recipe_says_in_one_place_what_its_model_is(rest: str, complaint: str, write_recipe: WriteRecipe) -> None:
    with pytest.raises(UserError) as raised:
        load_recipe(write_recipe(rest.replace("{t}", TRAINING)))
    assert complaint in str(raised.value)


def test_the_plan_is_that_of_the_models_own_shape(base: Path, write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe(f"[pretrain]\ninit_from = '{base}'\n{TRAINING}"))
    plan = plan_recipe(recipe, flops_per_second=1e12)
    assert plan.n_parameters == sum(parameter.numel() for parameter in load_pretrained(base).parameters())
    assert plan.settings["model.max_seq_len"] == 64


def test_new_tokens_leave_the_scores_of_the_old_ones_as_they_were(base: Path) -> None:
    model = load_pretrained(base)
    grown = with_vocabulary_of(model, model.config.vocab_size + 5)
    ids = torch.arange(20)[None]
    before, after = model.logits(model(ids)), grown.logits(grown(ids))
    torch.testing.assert_close(after[..., :-5], before)
    # About as likely as an average token, and no two of them alike.
    away = after[..., -5:] - before.mean(-1, keepdim=True)
    assert 0 < away.std() < 0.2 * before.std()
    assert not torch.equal(after[..., -1], after[..., -2])
    assert grown.head_weight is grown.model.embed_tokens.weight
    assert with_vocabulary_of(model, 10) is model
