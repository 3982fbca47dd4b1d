"""What can happen to a run from outside: each time one sentence, and nothing lost that was saved."""

import errno
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from hornbook.batching.packing import Batch
from hornbook.batching.shards import DocumentTokens, ShardedDocuments, write_shards
from hornbook.errors import RunFailed, UserError
from hornbook.model.transformer import Transformer
from hornbook.run_directory import RunDirectory
from hornbook.training import checkpoint
from hornbook.training.metrics import read_metrics
from hornbook.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]
OPTIONS: dict[str, Any] = {
    "checkpoint_interval_steps": 2,
    "keep_checkpoints": 2,
    "total_steps": 8,
    "schedule": "constant",
}


def _weights(trainer: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def _goes_on_to_the_same_end(make_trainer: MakeTrainer, folder: str, *from_steps: int) -> None:
    """Started again, a run takes up its last good checkpoint, and ends as one to which nothing happened."""
    said = io.StringIO()
    again = make_trainer(folder, console=Console(file=said, width=300), **OPTIONS)
    again.train()
    whole = make_trainer("undisturbed/pretrain", **OPTIONS)
    whole.train()

    assert any(f"Going on from step {step} of 8" in said.getvalue() for step in from_steps)
    assert all(torch.equal(one, other) for one, other in zip(_weights(again), _weights(whole), strict=True))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte, where this process may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk; the test beside this one does without")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(small_disk: Path, make_trainer: MakeTrainer) -> None:
    filler = small_disk / "filler"

    def fill(model: Transformer) -> dict[str, float]:
        with open(filler, "wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        return {}

    trainer = make_trainer("disk/pretrain", evaluators={"fill": fill}, evaluation_interval_steps=5, **OPTIONS)
    with pytest.raises(RunFailed) as failure:
        trainer.train()

    assert "No space left on device" in str(failure.value)
    assert "intact" in str(failure.value)
    assert "same command goes on" in str(failure.value)
    filler.unlink()
    # The checkpoint of step 4 may still have been on its way when the disk was filled.
    _goes_on_to_the_same_end(make_trainer, "disk/pretrain", 2, 4)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_what_is_left(
    number: int, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.dcp.save

    def save_until_full(tensors: dict[str, Tensor], **options: Any) -> None:
        if options["storage_writer"].path.name.startswith("step-00000006"):
            raise OSError(number, os.strerror(number))
        save(tensors, **options)

    trainer = make_trainer(**OPTIONS)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.dcp, "save", save_until_full)
        with pytest.raises(RunFailed) as failure:
            trainer.train()

    assert str(failure.value) == (
        f"{trainer.directory / 'checkpoints'}: the checkpoint of step 6 could not be written ({os.strerror(number)}). "
        "step-00000004 is intact: make room, and the same command goes on from there."
    )
    assert not list(trainer.directory.glob("checkpoints/*.unfinished"))
    _goes_on_to_the_same_end(make_trainer, "pretrain", 4)


def test_the_first_checkpoint_that_cannot_be_written_says_that_there_is_none(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.dcp, "save", fail)
    with pytest.raises(
        RunFailed, match=r"step 2 could not be written \(No space left on device\)\. There is none before"
    ):
        make_trainer(**OPTIONS).train()


def test_a_run_directory_that_cannot_be_written_is_said_to_be_so(small_disk: Path, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("disk/pretrain", **(OPTIONS | {"total_steps": 4}))
    trainer.train()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(RunFailed, match=r"cannot be written \(Read-only file system\)\. Checkpoints written before"):
        make_trainer("disk/pretrain", **OPTIONS).train()
    lock = RunDirectory(small_disk / "run").lock()
    with pytest.raises(UserError, match=r"cannot be written \(Read-only file system\)\. Make it writable"):
        lock.__enter__()

    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    _goes_on_to_the_same_end(make_trainer, "disk/pretrain", 4)


def test_a_log_that_cannot_be_written_ends_the_run_with_the_same_sentence(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "metrics.jsonl")

    trainer = make_trainer(**OPTIONS)
    monkeypatch.setattr("hornbook.training.metrics.MetricsLog.write", fail)
    with pytest.raises(RunFailed, match=r"metrics.jsonl: cannot be written \(Read-only file system\)"):
        trainer.train()


def test_other_errors_of_the_system_are_not_taken_for_the_disks(make_trainer: MakeTrainer) -> None:
    def evaluate(model: Transformer) -> dict[str, float]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "somewhere")

    with pytest.raises(FileNotFoundError):
        make_trainer(evaluators={"validation": evaluate}, **OPTIONS).train()


def test_a_number_planted_in_a_batch_costs_one_step(make_trainer: MakeTrainer) -> None:
    said = io.StringIO()
    trainer = make_trainer(console=Console(file=said, width=300), **OPTIONS)
    next_batch = trainer.loader.next_batch

    def plant() -> Batch:
        batch = next_batch()
        weights = torch.ones(batch.labels.shape)
        if trainer.step == 4:
            weights[5, 0] = float("nan")
        return replace(batch, weights=weights)

    trainer.loader.next_batch = plant  # type: ignore[method-assign]
    result = trainer.train()

    assert "Step 5 skipped: loss nan" in said.getvalue()
    assert result.skipped_steps == 1
    assert all(weight.isfinite().all() for weight in _weights(trainer))
    losses = [record["loss_nats"] for record in read_metrics(trainer.directory / "metrics.jsonl")]
    assert [loss is None for loss in losses] == [False, False, False, False, True, False, False, False]


def test_a_token_shard_that_was_cut_short_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    documents = [DocumentTokens([1, 2, 3, 4], n_bytes=9) for _ in range(50)]
    (path,) = write_shards(tmp_path, "train", documents, vocab_size=16, tokenizer_hash="x")
    os.truncate(path, path.stat().st_size - 100)

    with pytest.raises(UserError) as error:
        ShardedDocuments([path])

    assert str(error.value) == (
        f"{path}: has {path.stat().st_size:,} bytes where its header promises {path.stat().st_size + 100:,}. "
        "Remove the file, and run the recipe again to write it anew."
    )


def test_milestones_stay_when_others_go(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(total_steps=12, checkpoint_interval_steps=2, keep_checkpoints=1, milestone_interval_steps=5)
    trainer.train()

    kept = sorted(path.name for path in (trainer.directory / "checkpoints").iterdir())
    assert kept == ["step-00000005", "step-00000010", "step-00000012"]


def test_training_goes_on_while_a_checkpoint_is_written(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_while_writing = []
    trainer = make_trainer(**(OPTIONS | {"checkpoint_interval_steps": 4}))
    save = checkpoint.dcp.save

    def save_slowly(tensors: dict[str, Tensor], **options: Any) -> None:
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        started_at = trainer.step
        while trainer.step == started_at < trainer.total_steps:
            pass
        steps_while_writing.append(trainer.step - started_at)
        assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())
        save(tensors, **options)

    monkeypatch.setattr(checkpoint.dcp, "save", save_slowly)
    trainer.train()

    assert steps_while_writing[0] >= 1
    monkeypatch.undo()
    plain = make_trainer("elsewhere/pretrain", **OPTIONS)
    plain.train()
    assert all(torch.equal(one, other) for one, other in zip(_weights(trainer), _weights(plain), strict=True))


def _spoil(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = b"\0" * len(lines[line])
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("damage", "n_sound"),
    [
        (Path.unlink, 0),
        (lambda path: path.write_bytes(b""), 0),
        (lambda path: path.write_bytes(b"\0" * 500), 0),
        (lambda path: _spoil(path, 0), 0),
        (lambda path: _spoil(path, 4), 4),
        (lambda path: _spoil(path, 7), 7),
    ],
    ids=["lost", "empty", "zeros", "first line", "fifth line", "last line"],
)
def test_a_log_that_does_not_reach_the_checkpoint_is_told_and_nothing_is_given_up(
    damage: Callable[[Path], object], n_sound: int, make_trainer: MakeTrainer
) -> None:
    options = OPTIONS | {"keep_checkpoints": 4}
    first = make_trainer(**options)
    result = first.train()
    expected = _weights(first)
    log = first.directory / "metrics.jsonl"
    losses = [record["loss_nats"] for record in read_metrics(log)]
    damage(log)

    with pytest.raises(RunFailed, match=f"damaged after line {n_sound}, but step-00000008 goes on from a later step"):
        make_trainer(**options).train()
    kept = sorted((first.directory / "checkpoints").glob("step-*"))
    assert [path.name for path in kept] == [f"step-0000000{step}" for step in (2, 4, 6, 8)]

    # What the message says to do.
    for path in kept:
        if int(path.name.removeprefix("step-")) > n_sound:
            shutil.rmtree(path)
    again = make_trainer(**options)
    result_again = again.train()
    assert all(torch.equal(one, other) for one, other in zip(_weights(again), expected, strict=True))
    assert [record["loss_nats"] for record in read_metrics(log)] == losses
    assert (result_again.tokens, result_again.final_loss_nats) == (result.tokens, result.final_loss_nats)
