"""A run on disk: nothing half-written, nothing stale, nothing damaged passes for done."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hornbook.errors import UserError
from hornbook.recipe import load_recipe
from hornbook.run_directory import (
    RunDirectory,
    StageDirectory,
    atomic_write,
    atomic_writer,
    read_json,
    sha256_file,
    write_json,
)


@pytest.fixture
def finished(tmp_path: Path) -> StageDirectory:
    """A stage that was done with the fingerprint "one"."""
    stage = StageDirectory(tmp_path / "run" / "corpus")
    stage.begin("one")
    atomic_write(stage.path / "part" / "a.bin", b"content")
    atomic_write(stage.path / "checkpoints" / "step-1", b"state")
    stage.finish("one", seconds=1.5, facts={"documents": 3})
    return stage


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, "before")
    with pytest.raises(RuntimeError), atomic_writer(path) as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_text_keeps_its_characters_and_its_line_ends(tmp_path: Path) -> None:
    with atomic_writer(tmp_path / "file", "w") as file:
        file.write("é\n→\r\n")
    assert (tmp_path / "file").read_bytes() == "é\n→\r\n".encode()


def test_a_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    atomic_write(tmp_path / "empty", b"")
    assert sha256_file(tmp_path / "empty").startswith("e3b0c44298fc1c14")


def test_a_finished_stage_is_done_for_its_fingerprint_alone(finished: StageDirectory) -> None:
    assert finished.is_done("one")
    assert not finished.is_done("two")


def test_a_stage_that_only_began_is_not_done(tmp_path: Path) -> None:
    stage = StageDirectory(tmp_path / "corpus")
    assert not stage.is_done("one")
    stage.begin("one")
    assert not stage.is_done("one")
    assert stage.record() is None


def test_the_record_lists_what_was_made_but_not_the_checkpoints(finished: StageDirectory) -> None:
    record = finished.record()
    assert record is not None
    assert list(record["files"]) == ["part/a.bin"]
    assert record["facts"] == {"documents": 3}
    assert record["seconds"] == 1.5


@pytest.mark.parametrize("damage", [b"", b"CONTENT", b"content and more"])
def test_a_damaged_file_makes_its_stage_undone(finished: StageDirectory, damage: bytes) -> None:
    (finished.path / "part" / "a.bin").write_bytes(damage)
    assert not finished.is_done("one")


def test_a_lost_file_makes_its_stage_undone_and_a_lost_checkpoint_does_not(finished: StageDirectory) -> None:
    (finished.path / "checkpoints" / "step-1").unlink()
    assert finished.is_done("one")
    (finished.path / "part" / "a.bin").unlink()
    assert not finished.is_done("one")


def test_beginning_with_the_same_fingerprint_keeps_work_and_drops_damaged_files(
    finished: StageDirectory,
) -> None:
    atomic_write(finished.path / "part" / "b.bin", b"made later")
    (finished.path / "part" / "a.bin").write_bytes(b"damaged")
    (finished.path / "part" / ".c.bin.tmp-99").write_bytes(b"half")
    finished.begin("one")
    files = {path.name for path in finished.path.rglob("*") if path.is_file()}
    assert files == {"started.json", "step-1", "b.bin"}


def test_beginning_with_another_fingerprint_clears_the_folder(finished: StageDirectory) -> None:
    finished.begin("two")
    assert [path.name for path in finished.path.rglob("*")] == ["started.json"]
    assert [path.name for path in finished.path.parent.iterdir()] == ["corpus"]


def test_a_run_keeps_its_recipe_and_its_headline_facts(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    recipe = load_recipe(write_recipe())
    run = RunDirectory(tmp_path / "run")
    run.write_recipe(recipe)
    run.update_summary("corpus", {"documents": 3})
    run.update_summary("tokenizer", {"tokens": 5})
    run.update_summary("corpus", {"documents": 4})
    assert load_recipe(run.path / "recipe.toml") == recipe
    assert run.summary() == {"stages": {"corpus": {"documents": 4}, "tokenizer": {"tokens": 5}}}


def test_damaged_json_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "stage.json").write_text("{")
    with pytest.raises(UserError, match=r"stage\.json: is not valid JSON"):
        read_json(tmp_path / "stage.json")


@pytest.mark.parametrize("content", ["{}", "[]", "5", '{"fingerprint": "one", "seconds": 1, "facts": {}, "files": []}'])
def test_a_record_that_is_none_makes_its_stage_undone(content: str, finished: StageDirectory) -> None:
    (finished.path / "stage.json").write_text(content)
    run = RunDirectory(finished.path.parent)

    assert not finished.is_done("one")
    assert run.finished_stages() == {}
    assert run.keep_finished({"corpus": "two"}) == []
    finished.begin("one")
    assert {path.name for path in finished.path.rglob("*") if path.is_file()} == {"started.json", "step-1", "a.bin"}


@pytest.mark.parametrize("content", ["{}", "[]"])
def test_other_tables_that_are_none_count_as_not_there(content: str, finished: StageDirectory) -> None:
    run = RunDirectory(finished.path.parent)
    (finished.path / "started.json").write_text(content)
    (run.path / "summary.json").write_text(content)

    run.update_summary("corpus", {"documents": 3})
    finished.begin("one")

    assert run.summary() == {"stages": {"corpus": {"documents": 3}}}
    assert [path.name for path in finished.path.rglob("*")] == ["started.json"]


def test_a_file_listed_as_something_else_is_damaged(finished: StageDirectory) -> None:
    record = finished.record()
    assert record is not None
    record["files"]["part/a.bin"] = {}
    write_json(finished.path / "stage.json", record)

    assert not finished.is_done("one")


def test_a_folder_in_the_place_of_a_file_is_damage_like_any(finished: StageDirectory) -> None:
    (finished.path / "part" / "a.bin").unlink()
    (finished.path / "part" / "a.bin").mkdir()

    assert not finished.is_done("one")
    finished.begin("one")
    assert not (finished.path / "part" / "a.bin").exists()


def test_one_process_at_a_time_works_in_a_run(tmp_path: Path) -> None:
    code = (
        "import sys; from hornbook.run_directory import RunDirectory; from hornbook.errors import UserError\n"
        "try:\n    with RunDirectory(sys.argv[1]).lock(): print('free')\n"
        "except UserError as problem: print(problem)"
    )

    def other_process() -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "run")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with RunDirectory(tmp_path / "run").lock():
        assert "another process is working in this run directory" in other_process()
    assert other_process() == "free\n"


def test_what_a_kill_left_of_a_deletion_is_cleared_away(finished: StageDirectory) -> None:
    left = finished.path.with_name(f".{finished.name}.tmp-{os.getpid()}")
    left.mkdir()
    (left / "old").write_text("x")
    finished.begin("another")
    assert not left.exists()
