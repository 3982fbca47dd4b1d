"""A process notices which of the others has gone, and why."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch.distributed as dist

from hornbook.parallel import watch
from hornbook.parallel.watch import Watch


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dist.Store:
    monkeypatch.setattr(watch, "BEAT_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "SILENT_SECONDS", 0.3)
    return dist.HashStore()


def _silent_process(store: dist.Store, machine: str, process: int) -> None:
    store.set("process/1", json.dumps([machine, process]))
    store.set("end/1", "")
    store.set("beat/1", "5")


def test_a_dead_process_of_this_machine_is_named_at_once(store: dist.Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    _silent_process(store, watch._machine(), dead.pid)
    survivor = Watch(store, rank=0, world_size=2)

    lost = survivor.lost(10)
    survivor.stop()

    assert lost is not None
    assert lost.startswith(f"Rank 1 (process {dead.pid}) was killed.")


def test_a_slow_process_of_this_machine_is_not_missed(store: dist.Store) -> None:
    _silent_process(store, watch._machine(), os.getpid())
    survivor = Watch(store, rank=0, world_size=2)
    assert survivor.lost(1.0) is None
    survivor.stop()


def test_a_process_of_another_machine_whose_beat_stays_away_is_named(store: dist.Store) -> None:
    _silent_process(store, "node7 pid:[1]", os.getpid())
    survivor = Watch(store, rank=0, world_size=2)

    lost = survivor.lost(10)
    survivor.stop()

    assert lost is not None
    assert lost.startswith("Rank 1 (on node7) has not been heard of for")


def test_processes_that_beat_are_not_missed(store: dist.Store) -> None:
    first, second = Watch(store, 0, 2), Watch(store, 1, 2)
    assert first.lost(1.0) is None
    first.stop()
    second.stop()


def test_a_process_that_says_why_it_ends_is_quoted(store: dist.Store) -> None:
    first, second = Watch(store, 0, 2), Watch(store, 1, 2)
    second.tell_end("The disk is full.")

    assert first.lost(10) == "Rank 1 ended: The disk is full."
    first.stop()


def test_a_process_that_is_done_is_not_missed(store: dist.Store) -> None:
    first, second = Watch(store, 0, 2), Watch(store, 1, 2)
    second.stop()
    assert first.lost(1.0) is None
    first.stop()


def test_a_process_that_is_told_to_end_says_before_who_was_lost(
    store: dist.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    _silent_process(store, watch._machine(), dead.pid)
    survivor = Watch(store, rank=0, world_size=2)

    with pytest.raises(SystemExit) as end:
        survivor.end_when_told(signal.SIGTERM, None)

    assert end.value.code == 143
    assert f"the run failed: Rank 1 (process {dead.pid}) was killed." in capsys.readouterr().err


def test_a_process_that_is_told_to_end_while_all_are_there_blames_nobody(
    store: dist.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Watch(store, 0, 2), Watch(store, 1, 2)

    with pytest.raises(SystemExit):
        first.end_when_told(signal.SIGTERM, None)

    assert capsys.readouterr().err == ""
    second.stop()
