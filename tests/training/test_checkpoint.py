"""Checkpoints are whole or not there, and damage is noticed."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hornbook.training import checkpoint
from hornbook.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    remove_unfinished_checkpoints,
    save_checkpoint,
)


def _tensors(value: float) -> dict[str, Tensor]:
    return {"model.weight": torch.full((3, 2), value), "optimizer.step": torch.tensor(value)}


def _save(directory: Path, *steps: int, keep: int = 10) -> None:
    for step in steps:
        save_checkpoint(directory, step, _tensors(float(step)), {"step": step}, keep)


def _latest_step(directory: Path, warnings: list[str] | None = None) -> int | None:
    path = latest_checkpoint(directory, warn=([] if warnings is None else warnings).append)
    return None if path is None else load_checkpoint(path, _tensors(0.0))["step"]


def test_what_is_saved_is_loaded_in_place(tmp_path: Path) -> None:
    _save(tmp_path, 7)
    tensors = _tensors(0.0)
    weight = tensors["model.weight"]

    state = load_checkpoint(latest_checkpoint(tmp_path, warn=pytest.fail), tensors)

    assert state == {"step": 7}
    assert weight.eq(7).all()
    assert tensors["optimizer.step"] == 7


def test_a_folder_that_is_not_there_or_empty_has_no_checkpoint(tmp_path: Path) -> None:
    assert _latest_step(tmp_path) is None
    assert _latest_step(tmp_path / "absent") is None


def test_only_the_latest_are_kept(tmp_path: Path) -> None:
    _save(tmp_path, 5, 10, 15, 20, keep=2)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]


@pytest.mark.parametrize("interrupted", ["sha256_file", "write_json", "_remove_checkpoint"])
def test_a_process_killed_while_writing_leaves_the_one_before(
    tmp_path: Path, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, 5)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"{checkpoint.__name__}.{interrupted}", die)
        with pytest.raises(KeyboardInterrupt):
            _save(tmp_path, 10)
    assert _latest_step(tmp_path) == 5

    remove_unfinished_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    _save(tmp_path, 10)
    assert _latest_step(tmp_path) == 10


def test_every_damaged_file_is_noticed_and_the_checkpoint_before_used(tmp_path: Path) -> None:
    _save(tmp_path, 5, 10)
    files = sorted((tmp_path / "step-00000010").iterdir())
    assert len(files) >= 4  # tensors, their table of contents, state and marker

    for file in files:
        intact = file.read_bytes()
        for damaged in (intact[:-1], intact[:-2] + bytes([intact[-2] ^ 1]) + intact[-1:], None):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            warnings: list[str] = []
            is_harmless = file.name == "complete.json" and damaged == intact[:-1]
            assert _latest_step(tmp_path, warnings) == (10 if is_harmless else 5), file.name
            assert len(warnings) == (0 if is_harmless else 1)
            assert is_harmless or "step-00000010: this checkpoint is damaged" in warnings[0]
            file.write_bytes(intact)


def test_a_damaged_checkpoint_is_never_kept_in_place_of_a_good_one(tmp_path: Path) -> None:
    _save(tmp_path, 5, 20)
    (tmp_path / "step-00000020" / "state.json").write_text("spoilt")

    _save(tmp_path, 10, keep=1)

    assert _latest_step(tmp_path) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]


@pytest.mark.parametrize("name", ["step-00000005", "step-00000005.unfinished", "step-00000003.deleting"])
def test_a_plain_file_in_the_place_of_a_checkpoint_is_no_hindrance(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("what is this")

    _save(tmp_path, 5)

    assert _latest_step(tmp_path) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("marker", ["[]", "{}", '{"files": []}', '{"files": {"state.json": 5}}'])
def test_a_marker_that_says_something_else_is_damage(marker: str, tmp_path: Path) -> None:
    _save(tmp_path, 5, 10)
    (tmp_path / "step-00000010" / "complete.json").write_text(marker)

    assert _latest_step(tmp_path) == 5


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    _save(tmp_path, 5, 5)

    assert _latest_step(tmp_path) == 5
