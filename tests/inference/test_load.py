import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hornbook.errors import UserError
from hornbook.inference.commands import Writing, sample
from hornbook.inference.load import EngineOptions, find_model, load_engine
from hornbook.model.huggingface import save_pretrained
from hornbook.model.transformer import Transformer
from hornbook.runtime import Precision
from hornbook.tokenizer.tokenizer import Tokenizer


def test_the_first_of_the_stages_that_is_done_is_taken(run: Path):
    assert find_model(run, ("finetune", "pretrain")) == run / "finetune" / "final"
    shutil.rmtree(run / "finetune")
    assert find_model(run, ("finetune", "pretrain")) == run / "pretrain" / "final"


def test_the_folder_of_a_model_is_taken_as_it_is(run: Path):
    folder = run / "pretrain" / "final"
    assert find_model(folder, ("finetune",)) == folder


def test_a_run_without_the_stage_is_refused_with_advice(run: Path):
    shutil.rmtree(run / "finetune")
    with pytest.raises(UserError, match=r"no finished model of the stage finetune .* `hornbook run`"):
        find_model(run, ("finetune",))


def test_a_model_of_an_earlier_form_of_the_recipe_is_passed_over_and_refused_with_advice(run: Path):
    (run / "finetune" / "stage.json").unlink()
    assert find_model(run, ("finetune", "pretrain")) == run / "pretrain" / "final"
    with pytest.raises(UserError, match=r"finetune.final is of an earlier form of the recipe, or not done: `hornbook"):
        find_model(run, ("finetune",))


def test_a_misspelled_stage_is_answered_with_the_one_that_was_meant(run: Path):
    with pytest.raises(UserError, match=r"stage fintune here. Did you mean finetune\?"):
        find_model(run, ("fintune",))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere: there is no such folder"):
        find_model(tmp_path / "nowhere", ("pretrain",))


def test_an_engine_generates_from_what_was_saved(run: Path):
    engine = load_engine(run / "pretrain" / "final")
    assert len(engine.generate([engine.tokenizer.encode("Once upon")], 5)[0]) <= 5


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_an_engine_computes_in_the_precision_asked_for(run: Path, precision: Precision, dtype: torch.dtype):
    assert load_engine(run / "pretrain" / "final", EngineOptions(precision)).dtype == dtype


def test_a_tokenizer_of_another_model_is_refused(
    run: Path, tokenizer: Tokenizer, make_model: Callable[..., Transformer]
):
    folder = run / "pretrain" / "final"
    save_pretrained(make_model(vocab_size=50), folder, end_of_text_id=49, pad_id=48)
    with pytest.raises(UserError, match=f"has {tokenizer.vocab_size} tokens, but the model has 50"):
        load_engine(folder)


@pytest.fixture
def named_otherwise(run: Path) -> Path:
    """The folder of a model whose tokenizer calls its end of text as none of ours does."""
    folder = run / "pretrain" / "final"
    file = folder / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("<|endoftext|>", "</s>"), encoding="utf-8")
    return folder


def without_end_of_text(file: Path) -> None:
    settings = json.loads(file.read_text())
    del settings["eos_token_id"]
    file.write_text(json.dumps(settings))


def test_where_the_tokenizer_has_no_end_of_text_that_of_the_models_files_is_taken(
    named_otherwise: Path, tokenizer: Tokenizer
):
    prompt = tokenizer.encode("Once upon")
    expected = load_engine(named_otherwise).generate([prompt], 5)[0]
    end = expected[3]
    generation = named_otherwise / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": [end, tokenizer.end_of_text_id]}))
    assert load_engine(named_otherwise).end_ids == [end, tokenizer.end_of_text_id]
    assert load_engine(named_otherwise).generate([prompt], 5)[0] == expected[: expected.index(end)]
    without_end_of_text(generation)
    assert load_engine(named_otherwise).end_ids == [tokenizer.end_of_text_id]


def test_a_model_without_any_end_of_text_is_refused_before_anything_is_printed(
    named_otherwise: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("generation_config.json", "config.json"):
        without_end_of_text(named_otherwise / name)
    with pytest.raises(UserError, match=r"nothing says which token ends a text: .* eos_token_id in generation_config"):
        sample(named_otherwise, "Once upon", Writing(5))
    assert capsys.readouterr().out == ""
