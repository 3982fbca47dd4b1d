"""`hornbook check`: what it looks at, what it says, and how it ends."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hornbook import check as check_module
from hornbook.check import _sampled, check_recipe
from hornbook.cli import main
from hornbook.errors import UserError
from hornbook.recipe import load_recipe
from hornbook.stages.fit import Fit
from hornbook.training.preflight import Check

WriteRecipe = Callable[..., Path]

LITTLE = (
    "[storyworld]\nstories = 60\nechoes = 0\ninventories = 0\nstill_lives = 0\npuzzles = 0\nsums = 0\n"
    "encyclopedia_passages = 0\nweb_pages = 0\n"
    "[tokenizer]\nvocab_size = 400\n[model]\nn_layers = 1\nd_model = 32\nn_heads = 2\nmax_seq_len = 64\n"
    "[pretrain]\ntokens = 4096\nglobal_batch_tokens = 256\n"
)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """Stands in for the checks: what they are to have found."""
    checks: list[Check] = []

    def give(*_: Any) -> Iterator[Check]:
        yield from checks

    monkeypatch.setattr(check_module, "_checks", give)
    return checks


def test_all_that_passes_ends_in_status_0(
    write_recipe: WriteRecipe, found: list[Check], capsys: pytest.CaptureFixture[str]
) -> None:
    found += [Check("overfit", True, "it can.", {"steps": 3}), Check("learning rate", None, "not made.", {})]

    assert main(["check", str(write_recipe())]) == 0

    printed = capsys.readouterr().out
    assert "pass  overfit: it can." in printed
    assert "none  learning rate: not made." in printed
    assert "docs/TRAINING.md" in printed


def test_one_that_fails_ends_in_status_1_and_is_named(
    write_recipe: WriteRecipe, found: list[Check], capsys: pytest.CaptureFixture[str]
) -> None:
    found += [Check("data", True, "good.", {}), Check("first loss", False, "12.0 nats.", {"loss_nats": 12.0})]

    assert main(["check", str(write_recipe()), "--json"]) == 1

    printed = capsys.readouterr()
    table = json.loads(printed.out)
    assert table["failed"] == ["first loss"]
    assert table["checks"][1]["figures"] == {"loss_nats": 12.0}
    assert table["checks"][1]["explained_in"] == "docs/TRAINING.md#first-loss"
    assert "1 of 2 checks failed: first loss" in printed.err


def test_each_check_has_its_section_in_the_docs() -> None:
    sections = (Path(__file__).parent.parent / "docs" / "TRAINING.md").read_text()
    names = ("memory", "data", "first loss", "no future leaks", "gradients", "update ratio", "overfit", "learning rate")

    assert [name for name in names if f"\n### {name}\n" not in sections] == []


def test_what_cannot_fit_is_told_and_nothing_is_made(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_module, "fit_in_memory", lambda *_: Fit(0, 8, "a single row needs about 90 GB."))
    monkeypatch.setattr(check_module, "_data", pytest.fail)

    assert main(["check", str(write_recipe())]) == 1

    assert "FAIL  memory: a single row needs about 90 GB." in capsys.readouterr().out


def test_a_sample_has_some_documents_of_each_file_source(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    many = tmp_path / "many.jsonl"
    many.write_text("".join(json.dumps({"text": f"Document number {n}."}) + "\n" for n in range(1000)))
    page = tmp_path / "page.html"
    page.write_text("<html><body><p>A page.</p></body></html>")
    path = write_recipe(f'[corpus]\nsource = ["files:{many}", "files:{page}"]\n{LITTLE}')
    folder = tmp_path / "sample"
    folder.mkdir()

    sample = _sampled(load_recipe(path), folder)

    assert sample.corpus.source == (f"files:{folder}/source-0/*", f"files:{folder}/source-1/*")
    assert len((folder / "source-0" / "sample.jsonl").read_text().splitlines()) == 400
    assert "A page." in next((folder / "source-1").glob("*.html")).read_text()
    assert sample.model == load_recipe(path).model


def test_a_source_behind_the_network_is_not_fetched(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    path = write_recipe(f'[corpus]\nsource = "hf://datasets/some/thing"\n{LITTLE}')

    with pytest.raises(UserError, match="--until tokens"):
        _sampled(load_recipe(path), tmp_path)


def test_a_recipe_without_pretraining_has_nothing_to_check(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe()).model_copy(update={"pretrain": None})

    with pytest.raises(UserError, match="no section pretrain"):
        check_recipe(recipe, tmp_path, console=None)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_healthy_recipe_passes_and_a_learning_rate_beyond_all_bounds_fails(
    write_recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_recipe(LITTLE))
    runs = tmp_path / "runs"

    assert main(["check", path, "--runs", str(runs), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert len(table["checks"]) == 8
    assert not runs.exists()
    assert main(["check", path, "--runs", str(runs), "--pretrain.lr", "5", "--pretrain.muon_lr", "5"]) == 1
    assert "update ratio" in capsys.readouterr().err
