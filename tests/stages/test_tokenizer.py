"""The tokenizer stage learns or takes over a vocabulary, and reports how it fits by source and language."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from rich.console import Console

from hornbook.errors import UserError
from hornbook.pipeline import STAGES
from hornbook.recipe import load_recipe
from hornbook.run_directory import RunDirectory
from hornbook.stages import tokens
from hornbook.stages.context import StageContext
from hornbook.stages.token_view import show_training_tokens
from hornbook.stages.tokenizer import run
from hornbook.tokenizer.tokenizer import Tokenizer

TEXTS = {
    "books": "The lamp stood in the garden, and Mira saw it there in the evening when she came home.",
    "web": "La lampe était dans le jardin, et Mira la vit le soir quand elle rentra à la maison.",
}


@pytest.fixture(autouse=True)
def no_other_vocabularies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HORNBOOK_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))


@pytest.fixture
def begin(tmp_path: Path, write_recipe: Callable[..., Path]) -> Callable[..., StageContext]:
    """The context of a stage in a run whose corpus has an English and a French source."""
    directory = RunDirectory(tmp_path / "run")
    folder = directory.stage("corpus").path
    folder.mkdir(parents=True)
    rows = [
        {"split": split, "source": source, "text": text}
        for split in ("train", "validation")
        for source, text in TEXTS.items()
        for _ in range(3)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "documents-00000.parquet")

    def begin(stage: str = "tokenizer", recipe_end: str = "", **overrides: Any) -> StageContext:
        settings = {"tokenizer.vocab_size": 400} | {f"tokenizer.{name}": value for name, value in overrides.items()}
        pretrain = "[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\n"
        recipe = load_recipe(write_recipe(pretrain + recipe_end), settings)
        directory.write_recipe(recipe)
        return StageContext(recipe, directory, directory.stage(stage), Console(file=io.StringIO(), width=100))

    return begin


def report_of(context: StageContext) -> dict[str, Any]:
    return json.loads((context.stage.path / "report.json").read_text())


def printed(context: StageContext) -> str:
    return context.console.file.getvalue()


def test_the_report_tells_sources_and_languages_apart(begin: Callable[..., StageContext]) -> None:
    context = begin()
    facts = run(context)
    report = report_of(context)
    assert {name: group["documents"] for name, group in report["by_source"].items()} == {"books": 3, "web": 3}
    assert {name: group["documents"] for name, group in report["by_language"].items()} == {"en": 3, "fr": 3}
    assert facts["bytes_per_token"] == report["bytes_per_token"] > 2
    assert facts["vocab_size"] == Tokenizer.load(context.stage.path).vocab_size
    assert "source: web" in printed(context)
    assert "language: fr" in printed(context)


def test_a_recipe_names_its_special_tokens(begin: Callable[..., StageContext]) -> None:
    context = begin(special_tokens=("<|tool|>", "<|result|>"))
    run(context)
    tokenizer = Tokenizer.load(context.stage.path)
    assert [tokenizer.special_id(name) for name in ("<|tool|>", "<|result|>")] == [
        tokenizer.vocab_size - 2,
        tokenizer.vocab_size - 1,
    ]
    assert tokenizer.special_id("<|tool|>") not in tokenizer.encode("say <|tool|>")
    assert tokenizer.special_id("<|tool|>") in tokenizer.encode("say <|tool|>", special_tokens=True)


def test_a_published_tokenizer_is_taken_over(begin: Callable[..., StageContext], tmp_path: Path) -> None:
    published = Tokenizer.train(TEXTS.values(), 320, "gpt2")
    published.save(tmp_path / "published")
    context = begin(load_from=str(tmp_path / "published"), special_tokens=("<|tool|>",))
    facts = run(context)
    ours = Tokenizer.load(context.stage.path)
    assert ours.encode(TEXTS["web"]) == published.encode(TEXTS["web"])
    assert ours.special_ids == published.special_ids | {"<|tool|>": published.vocab_size}
    assert facts["vocab_size"] == published.vocab_size + 1
    assert "For a plan of that size set tokenizer.vocab_size = 321" in " ".join(printed(context).split())


def test_other_content_of_a_published_tokenizer_is_other_work(
    begin: Callable[..., StageContext], tmp_path: Path
) -> None:
    (stage,) = (stage for stage in STAGES if stage.name == "tokenizer")

    def settings(folder: str) -> Any:
        return stage.settings(begin(load_from=str(tmp_path / folder)).recipe)

    for folder, vocab_size in (("one", 320), ("the same", 320), ("other", 330)):
        Tokenizer.train(TEXTS.values(), vocab_size, "gpt2").save(tmp_path / folder)
    assert settings("one") == settings("the same")
    assert settings("one") != settings("other")
    assert settings("one") != stage.settings(begin().recipe)


def test_shards_hold_the_ids_of_the_texts(begin: Callable[..., StageContext]) -> None:
    context = begin()
    run(context)
    facts = tokens.run(begin("tokens"))
    tokenizer = Tokenizer.load(context.stage.path)
    assert facts["train_tokens"] == 3 * sum(len(tokenizer.encode(text)) + 1 for text in TEXTS.values())


def test_training_rows_can_be_looked_at(begin: Callable[..., StageContext]) -> None:
    context = begin()
    run(context)
    tokens.run(begin("tokens"))
    console = Console(file=io.StringIO(), width=100)
    show_training_tokens(context.run.path, console)
    shown = console.file.getvalue()
    assert "pretraining, row 1 of 256 tokens" in shown
    assert "document 2" in shown
    assert "<|endoftext|>⟧" in shown
    assert "padding" in shown
    bare = shown.replace("│", "").replace("⟦", "").replace("⟧", "")
    assert all(f"{text}<|endoftext|>" in bare for text in TEXTS.values())


def test_conversations_can_be_looked_at(begin: Callable[..., StageContext], tmp_path: Path) -> None:
    talk = [{"instruction": "Where?", "output": "Here."}, {"instruction": "long " * 300, "output": "Yes."}]
    (tmp_path / "talk.json").write_text(json.dumps(talk))
    settings = "tokens = 4096\nglobal_batch_tokens = 1024\nrow_tokens = 64"
    finetune = f'[finetune]\nsource = "files:{tmp_path / "talk.json"}"\n{settings}'
    context = begin(recipe_end=finetune)
    run(context)
    tokens.run(begin("tokens", recipe_end=finetune))
    console = Console(file=io.StringIO(), width=100)
    show_training_tokens(context.run.path, console)
    shown = console.file.getvalue().replace("│", "")
    assert "<|user|>Where?<|end|><|assistant|>⟦Here.<|end|>⟧" in shown
    assert "fine-tuning, conversation 2: left out, for its" in shown
    assert "more tokens" in shown


def test_a_run_without_tokens_says_what_to_do(begin: Callable[..., StageContext]) -> None:
    with pytest.raises(UserError, match=r"has no tokens yet\. Run its recipe with --until tokens first"):
        show_training_tokens(begin().run.path, Console(file=io.StringIO()))
