"""Checkpoints that are whole or not there at all, written while the training goes on.

A checkpoint is a folder `step-00000200` with the tensors as torch.distributed.checkpoint writes them, the
small rest in `state.json`, and `complete.json` with the size and SHA-256 of every other file. It is written
under another name, its marker last, flushed to the disk, then renamed. A process killed at any moment leaves
the checkpoints before it intact, and a file that the disk has spoilt since is noticed before it is used.

`CheckpointWriter` copies the tensors, which takes no longer than a step, and a thread of its own does the rest.

Several processes write one checkpoint together, each its own parts, into a folder that all of them see. The parts are
put down with their places in the whole, under names that say nothing of processes: it can be read in any other layout.

torch.distributed.checkpoint keeps its table of contents as a pickle. So a checkpoint is for continuing one's
own run; a model is handed on as safetensors instead.
"""

import json
import os
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from hornbook.errors import RunFailed
from hornbook.parallel.mesh import Mesh
from hornbook.run_directory import read_json, remove, sha256_file, sync_folder, write_json
from hornbook.training.disk import reason_of

_STATE = "state.json"
_MARKER = "complete.json"
_UNFINISHED, _DELETING = ".unfinished", ".deleting"


class CheckpointWriter:
    """Writes checkpoints into `directory` in the background, at most one at a time.

    Used as a context, it ends when the last one is written. `keep` and `milestone_interval_steps` say which older ones
    stay: see `save_checkpoint`.
    """

    def __init__(
        self, directory: Path, keep: int, milestone_interval_steps: int | None = None, mesh: Mesh | None = None
    ) -> None:
        self._directory, self._keep, self._milestone_interval_steps = directory, keep, milestone_interval_steps
        self._mesh = mesh
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._step = 0

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif self._thread is not None:  # what went wrong first is what should be told
            self._thread.join()

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep_one_more: bool = False) -> None:
        """Copy the tensors to main memory, and write them and `state` in the background.

        Waits for the checkpoint before, where that is still being written. Raises as `wait` does.
        """
        self.wait()
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        keep = self._keep + (1 if keep_one_more else 0)
        self._step = step
        self._thread = threading.Thread(target=self._write, args=(step, copies, state, keep), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written. Raises RunFailed where the last checkpoint could not be written."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if self._failure is not None:
            raise RunFailed(
                f"{self._directory}: the checkpoint of step {self._step} could not be written "
                f"({reason_of(self._failure, self._directory)}). {self._what_is_left()}"
            ) from self._failure

    def check(self) -> None:
        """Raise as `wait` does, but only where writing has ended; returns at once."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def _write(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> None:
        try:
            save_checkpoint(self._directory, step, tensors, state, keep, self._milestone_interval_steps, self._mesh)
        except BaseException as failure:  # torch's CheckpointException is not an Exception
            self._failure = failure

    def _what_is_left(self) -> str:
        left = latest_checkpoint(self._directory, warn=lambda _: None)
        if left is None:
            return "There is none before it. Make room, or choose another place with --runs DIR, and begin again."
        return f"{left.name} is intact: make room, and the same command goes on from there."


def save_checkpoint(
    directory: Path,
    step: int,
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    keep: int,
    milestone_interval_steps: int | None = None,
    mesh: Mesh | None = None,
) -> Path:
    """Write a checkpoint into `directory`, delete the older ones that need not stay, and return its folder.

    There stay the `keep` latest up to this one, and every one whose step is a multiple of `milestone_interval_steps`.
    `state` must be what JSON can hold. A checkpoint of the same step is replaced, and those of later steps
    go: they belong to a course that was given up, such as one whose end was damaged. Where writing fails, what was
    written of it is removed. All processes of a mesh have to call it.
    """
    group = _group_of(mesh)
    is_first = mesh is None or mesh.is_first
    final = directory / f"step-{step:08d}"
    unfinished = final.with_suffix(_UNFINISHED)
    if is_first:
        remove_unfinished_checkpoints(directory)
        unfinished.mkdir(parents=True)
    _meet(group)
    try:
        with _without_process_group_warning():
            writer = dcp.FileSystemWriter(unfinished)
            dcp.save(tensors, storage_writer=writer, process_group=group, no_dist=group is None)
        if is_first:
            write_json(unfinished / _STATE, state)
        files = _checksums(unfinished, group)
        if is_first:
            write_json(unfinished / _MARKER, {"step": step, "files": files})
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if is_first:
        _remove_checkpoint(final)
        os.rename(unfinished, final)
        sync_folder(directory)
        found = _checkpoints_newest_first(directory)
        position = found.index(final)
        too_old = [path for path in found[position + keep :] if not _is_milestone(path, milestone_interval_steps)]
        for doomed in found[:position] + too_old:
            _remove_checkpoint(doomed)
    _meet(group)
    return final


def _checksums(folder: Path, group: dist.ProcessGroup | None) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file; each process reads what it wrote (by torch's names), and rank 0 the rest."""
    rank = 0 if group is None else dist.get_rank()
    own = [
        path
        for path in folder.iterdir()
        if group is None or path.name.startswith(f"__{rank}_") or (rank == 0 and not path.name.startswith("__"))
    ]
    sums = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in own}
    if group is None:
        return sums
    gathered: list[dict[str, dict[str, Any]]] = [{} for _ in range(group.size())]
    dist.all_gather_object(gathered, sums, group=group)
    return {name: entry for some in gathered for name, entry in some.items()}


def _group_of(mesh: Mesh | None) -> dist.ProcessGroup | None:
    return mesh.checkpoint_group if mesh is not None and mesh.is_spread else None


def _meet(group: dist.ProcessGroup | None) -> None:
    """Go on when all processes of the group are here."""
    if group is not None:
        dist.barrier(group)


def intact_checkpoints(directory: Path, warn: Callable[[str], None]) -> Iterator[Path]:
    """The intact checkpoints, newest first. Damaged ones are named in a warning and passed over."""
    for path in _checkpoints_newest_first(directory):
        problem = _damage(path)
        if problem is None:
            yield path
        else:
            warn(f"{path}: this checkpoint is damaged ({problem}); using the one before it.")


def latest_checkpoint(directory: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest intact checkpoint, or None. Damaged ones are named in a warning and passed over."""
    return next(intact_checkpoints(directory, warn), None)


def load_checkpoint(path: Path, tensors: dict[str, Tensor], mesh: Mesh | None = None) -> dict[str, Any]:
    """Read those of an intact checkpoint's tensors that are asked for, in place, and return its `state`.

    Each process reads what it has a part of, whoever wrote it.
    """
    with _without_process_group_warning():
        group = _group_of(mesh)
        dcp.load(tensors, storage_reader=dcp.FileSystemReader(path), process_group=group, no_dist=group is None)
    return read_state(path)


def read_state(path: Path) -> dict[str, Any]:
    """The `state` of an intact checkpoint, without its tensors."""
    return read_json(path / _STATE)


def saved_steps(directory: Path) -> list[int]:
    """The steps that have a checkpoint, newest first, whether it is intact or not."""
    return [_step_of(path) for path in _checkpoints_newest_first(directory)]


def remove_unfinished_checkpoints(directory: Path) -> None:
    """Delete what a killed process left of checkpoints that it was writing or deleting."""
    for suffix in (_UNFINISHED, _DELETING):
        for path in directory.glob(f"*{suffix}"):
            remove(path)


def _remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint. It is renamed first: killed in the middle, no half of it may pass for a whole."""
    if path.exists():
        doomed = path.with_suffix(_DELETING)
        os.rename(path, doomed)
        remove(doomed)


@contextmanager
def _without_process_group_warning() -> Iterator[None]:
    """A single process is what is meant where there is no process group; torch warns that it assumes so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _checkpoints_newest_first(directory: Path) -> list[Path]:
    found = directory.iterdir() if directory.is_dir() else []
    return sorted((path for path in found if re.fullmatch(r"step-\d+", path.name)), reverse=True)


def _is_milestone(path: Path, interval_steps: int | None) -> bool:
    return interval_steps is not None and _step_of(path) % interval_steps == 0


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = json.loads((path / _MARKER).read_text())["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_MARKER} cannot be read: {error}"
    for name, expected in files:
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if expected != {"bytes": file.stat().st_size, "sha256": sha256_file(file)}:
            return f"{name} has changed since it was written"
    return None
