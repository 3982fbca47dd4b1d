"""The command line: quick help, one clear message for a mistake, and exit statuses that scripts can trust."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hornbook.cli import VERBS, main
from hornbook.errors import RunFailed
from hornbook.recipe import Recipe, load_recipe

WriteRecipe = Callable[..., Path]


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hornbook", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def asked_to_run(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stands in for the pipeline, and keeps what it was called with."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("hornbook.pipeline.run_pipeline", lambda *arguments, **named: calls.append(arguments))
    return calls


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_explains_every_command_with_an_example(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert verb.sentence in printed
        assert f"hornbook {name} {verb.example}" in printed


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_command_has_its_sentence_and_its_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert VERBS[verb].sentence in printed
    assert f"usage: hornbook {verb}" in printed


def test_help_needs_neither_torch_nor_the_dataframe_engine(write_recipe: WriteRecipe) -> None:
    code = (
        "import sys; from hornbook.cli import main\n"
        "from hornbook.cli import VERBS\n"
        "for arguments in ([], *([verb, '--help'] for verb in VERBS), ['run', sys.argv[1], '--help']):\n"
        "    assert main(arguments) == 0, arguments\n"
        "assert not {'torch', 'daft', 'pyarrow', 'matplotlib'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(write_recipe())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_after_a_recipe_shows_its_own_values(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe("[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\nlr = 0.00123\n")
    assert main(["run", str(path), "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--pretrain.lr NUMBER Peak learning rate of AdamW. (default: 0.00123)" in printed
    assert "--corpus.deduplicate {none,exact,minhash}" in printed
    assert "--finetune.tokens INT" in printed


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hornbook 0.")


def test_flags_change_the_recipe_that_runs(
    write_recipe: WriteRecipe, tmp_path: Path, asked_to_run: list[tuple[Any, ...]]
) -> None:
    flags = ["--pretrain.lr", "5e-4", "--pretrain.compile", "false", "--corpus.source", "files:a", "files:b"]
    flags += ["--corpus.weights", "2", "0.5", "--corpus.cleaning.preset", "classic"]
    flags += [
        "--corpus.filters.max_words",
        "off",
        "--model.n-layers",
        "7",
        "--runs",
        str(tmp_path),
        "--until",
        "tokens",
    ]
    assert main(["run", str(write_recipe()), *flags]) == 0
    ((recipe, runs, selection, _),) = asked_to_run
    assert isinstance(recipe, Recipe)
    assert recipe.pretrain.lr == 5e-4
    assert recipe.pretrain.compile is False
    assert recipe.corpus.source == ("files:a", "files:b")
    assert recipe.corpus.weights == (2.0, 0.5)
    assert recipe.corpus.cleaning.preset == "classic"
    assert recipe.corpus.filters.max_words is None
    assert recipe.model.n_layers == 7
    assert runs == tmp_path
    assert (selection.only, selection.start, selection.until) == (None, None, "tokens")


def test_a_flag_that_gives_what_the_recipe_has_holds_against_a_preset(
    write_recipe: WriteRecipe, asked_to_run: list[tuple[Any, ...]]
) -> None:
    """Alone, the preset sets another number of words."""
    recipe_path = write_recipe()
    own = load_recipe(recipe_path).corpus.filters.min_words
    preset = ["--corpus.filters.preset", "gopher"]
    assert main(["run", str(recipe_path), *preset]) == 0
    assert main(["run", str(recipe_path), *preset, "--corpus.filters.min_words", str(own)]) == 0
    assert [recipe.corpus.filters.min_words for recipe, *_ in asked_to_run] == [50, own]


def test_a_section_that_the_recipe_lacks_can_be_given_with_flags(
    write_recipe: WriteRecipe, asked_to_run: list[tuple[Any, ...]]
) -> None:
    flags = [
        "--finetune.source",
        "files:a.json",
        "--finetune.tokens",
        "2048",
        "--finetune.global_batch_tokens",
        "512",
    ]
    assert main(["run", str(write_recipe()), *flags]) == 0
    finetune = asked_to_run[0][0].finetune
    assert (finetune.source, finetune.tokens) == (("files:a.json",), 2048)


def test_mistakes_of_the_recipe_and_of_the_flags_end_in_status_2_without_a_traceback(
    write_recipe: WriteRecipe,
) -> None:
    path = write_recipe("[pretrain]\ntokens = 'x'\nglobal_batch_tokens = 1024\nlr = -1\nwarm = 3\n")
    done = run_command("run", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for name in ("pretrain.tokens", "pretrain.lr", "pretrain.warm"):
        assert f"{path}: {name}: " in done.stderr
    assert "did you mean pretrain.warmup_fraction?" in done.stderr


def test_a_flag_with_a_wrong_value_is_a_users_error(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str], asked_to_run: list[tuple[Any, ...]]
) -> None:
    assert main(["run", str(write_recipe()), "--pretrain.lr", "-1", "--model.n_heads", "many"]) == 2
    message = capsys.readouterr().err
    assert "--pretrain.lr: must be greater than 0, but is -1" in message
    assert "--model.n_heads: must be a whole number" in message
    assert asked_to_run == []


def test_a_mistyped_flag_is_answered_with_the_right_one(
    write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(write_recipe()), "--pretrain.weigth_decay", "0"]) == 2
    message = capsys.readouterr().err
    assert "--pretrain.weigth_decay" in message
    assert "--pretrain.weight_decay" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "rum: is no command. Did you mean run?"),
        (["run", "b\udcff.toml"], "b?.toml: is not UTF-8"),
        (["xyzzy"], "The commands are: run, plan, scale, reference, check"),
        (["run", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["run", "recipe.yaml"], "recipe.yaml: is no recipe"),
        (["show", "nowhere"], "nowhere: holds no run"),
        (["show", "nowhere", "--tokens"], "nowhere: holds no run"),
        (["predict", "runs/spam"], "predict: there is no text"),
        (["eval", "runs/a", "--limit", "3"], "--limit: has no meaning for the run's own questions"),
        (["eval", "runs/a", "--text", "a.txt", "--to", "a.json"], "--to: has no meaning for --text"),
        (["eval", "runs/a", "--tasks", "core", "--shots", "2"], "--shots: has no meaning for --tasks core"),
        (["eval", "runs/a", "--text", "a.txt", "--tasks", "piqa"], "--text and --tasks are asked for at once"),
        (["eval", "runs/a", "--tasks", "piqa", "--limit", "0"], "--limit: must be 1 or more, but is 0"),
        (["eval", "runs/a", "--tasks", "piqa", "--shots", "-1"], "--shots: must be 0 or more, but is -1"),
        (["eval", "runs/a", "--tasks", "piqa", "--to", "/"], "--to /: is a folder. Name a file in it."),
        (["book", "-o", "/"], "--output /: is a folder. Name a file in it."),
        (["run"], "RECIPE"),
        (["sample"], "RUN"),
    ],
)
def test_a_mistake_on_the_command_line_has_status_2_and_says_what_to_do(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (RunFailed("the loss is not a number"), 1, "the run failed: the loss is not a number"),
        (KeyboardInterrupt(), 130, "The same command goes on"),
    ],
)
def test_a_run_that_ends_early_says_so_in_its_status(
    raised: BaseException,
    status: int,
    message: str,
    write_recipe: WriteRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise raised

    monkeypatch.setattr("hornbook.pipeline.run_pipeline", fail)
    assert main(["run", str(write_recipe())]) == status
    assert message in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("hornbook.pipeline.run_pipeline", fail)
    with pytest.raises(ZeroDivisionError):
        main(["run", str(write_recipe())])


def test_a_reader_that_stops_reading_is_no_error() -> None:
    command = f'"{sys.executable}" -m hornbook --help | head -n 1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: hornbook")
    assert "BrokenPipe" not in done.stderr


def test_a_place_that_cannot_be_written_is_told_in_a_sentence(
    write_recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["world", str(write_recipe()), "--to", str(place)]) == 2
        assert f"--to {place}: " in capsys.readouterr().err


def test_a_file_that_vanishes_meanwhile_is_told_in_a_sentence(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", "somewhere")

    monkeypatch.setattr("hornbook.pipeline.run_pipeline", fail)
    assert main(["run", str(write_recipe())]) == 2
    assert "somewhere: No such file or directory" in capsys.readouterr().err
