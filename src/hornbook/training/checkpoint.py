"""Checkpoints that are whole or not there at all.

A checkpoint is a folder `step-00000200` with the tensors as torch.distributed.checkpoint writes them, the
small rest in `state.json`, and `complete.json` with the size and SHA-256 of every other file. It is written
under another name, its marker last, flushed to the disk, then renamed. A process killed at any moment leaves
the checkpoints before it intact, and a file that the disk has spoilt since is noticed before it is used.

torch.distributed.checkpoint keeps its table of contents as a pickle. So a checkpoint is for continuing one's
own run; a model is handed on as safetensors instead.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from hornbook.run_directory import read_json, sha256_file, sync_folder, write_json

_STATE = "state.json"
_MARKER = "complete.json"
_UNFINISHED, _DELETING = ".unfinished", ".deleting"


def save_checkpoint(directory: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint into `directory`, delete all but the `keep` latest up to it, and return its folder.

    `state` must be what JSON can hold. A checkpoint of the same step is replaced, and those of later steps
    go: they belong to a course that was given up, such as one whose end was damaged.
    """
    final = directory / f"step-{step:08d}"
    unfinished = final.with_suffix(_UNFINISHED)
    remove_unfinished_checkpoints(directory)
    unfinished.mkdir(parents=True)
    with _without_process_group_warning():
        dcp.save(tensors, storage_writer=dcp.FileSystemWriter(unfinished), no_dist=not dist.is_initialized())
    write_json(unfinished / _STATE, state)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in unfinished.iterdir()}
    write_json(unfinished / _MARKER, {"step": step, "files": files})
    _remove(final)
    os.rename(unfinished, final)
    sync_folder(directory)
    found = _checkpoints_newest_first(directory)
    position = found.index(final)
    for doomed in found[:position] + found[position + keep :]:
        _remove(doomed)
    return final


def latest_checkpoint(directory: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest intact checkpoint, or None. Damaged ones are named in a warning and passed over."""
    for path in _checkpoints_newest_first(directory):
        problem = _damage(path)
        if problem is None:
            return path
        warn(f"{path}: this checkpoint is damaged ({problem}); using the one before it.")
    return None


def load_checkpoint(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Read an intact checkpoint into `tensors`, in place, and return its `state`."""
    with _without_process_group_warning():
        dcp.load(tensors, storage_reader=dcp.FileSystemReader(path), no_dist=not dist.is_initialized())
    return read_json(path / _STATE)


def remove_unfinished_checkpoints(directory: Path) -> None:
    """Delete what a killed process left of checkpoints that it was writing or deleting."""
    for suffix in (_UNFINISHED, _DELETING):
        for path in directory.glob(f"*{suffix}"):
            shutil.rmtree(path)


@contextmanager
def _without_process_group_warning() -> Iterator[None]:
    """A single process is what is meant where there is no process group; torch warns that it assumes so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _checkpoints_newest_first(directory: Path) -> list[Path]:
    found = directory.iterdir() if directory.is_dir() else []
    return sorted((path for path in found if re.fullmatch(r"step-\d+", path.name)), reverse=True)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = json.loads((path / _MARKER).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{_MARKER} cannot be read: {error}"
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"] or sha256_file(file) != expected["sha256"]:
            return f"{name} has changed since it was written"
    return None


def _remove(path: Path) -> None:
    """Delete a checkpoint. It is renamed first: killed in the middle, no half of it may pass for a whole."""
    if path.exists():
        doomed = path.with_suffix(_DELETING)
        os.rename(path, doomed)
        shutil.rmtree(doomed)
