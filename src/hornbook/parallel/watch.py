"""Who is still there: each process writes a beat into the common store, and watches those of the others.

A process that dies leaves the others in an exchange that never ends. Each has a thread that notices: a process of the
same machine that is not there any more, a beat of another machine that stays away, or a process that said why it ended.
The thread gives its own process a moment to end by itself, since an exchange with a dead process often breaks at once,
and then ends it, with a sentence that names who was lost.

Beats of the same machine prove nothing: where it is overloaded, they can stay away for long.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import torch.distributed as dist

BEAT_INTERVAL_SECONDS = 1.0
SILENT_SECONDS = 45.0
_SECONDS_TO_END_BY_ITSELF = 5.0
_SECONDS_TO_NOTICE = 3 * BEAT_INTERVAL_SECONDS
FAILED = 1
_WHAT_NOW = "The last checkpoint is intact; the same command goes on from there."


class Watch:
    """A thread that beats and watches, from its start to `stop`. `store` is for it alone."""

    def __init__(self, store: dist.Store, rank: int, world_size: int) -> None:
        self._store, self._rank, self._world_size = store, rank, world_size
        self._is_over = threading.Event()
        self._has_found = threading.Event()
        self._loss = ""
        self._last_change = dict.fromkeys(range(world_size), time.monotonic())
        self._beats: dict[int, bytes] = {}
        store.set(f"process/{rank}", json.dumps([_machine(), os.getpid()]))
        store.set(f"end/{rank}", "")
        store.set(f"beat/{rank}", "0")
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def tell_end(self, reason: str) -> None:
        """Let the others know that this process ends because of something that happened here. Ends the watch."""
        self._is_over.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # the process that keeps the store may have gone
            self._store.set(f"end/{self._rank}", reason)

    def stop(self) -> None:
        """End the watch: all is done."""
        self.tell_end("done")

    def lost(self, wait_seconds: float) -> str | None:
        """Which process was lost, in a sentence, or None where none is found to be within that time."""
        return self._loss if self._has_found.wait(wait_seconds) else None

    def end_when_told(self, signal_number: int, frame: FrameType | None) -> None:
        """What SIGTERM does where nothing trains: this process ends, and says before whether another was lost.

        torchrun sends it to all processes as soon as one of them has died.
        """
        lost = self.lost(_SECONDS_TO_NOTICE)
        self._is_over.set()
        if lost is not None:
            print(f"the run failed: {lost}", file=sys.stderr, flush=True)
        raise SystemExit(128 + signal_number)

    def _run(self) -> None:
        number = 0
        not_started = [rank for rank in range(self._world_size) if rank != self._rank]
        started: list[int] = []
        while not self._is_over.wait(BEAT_INTERVAL_SECONDS):
            number += 1
            try:
                self._store.set(f"beat/{self._rank}", str(number))
                started += [rank for rank in not_started if self._store.check([f"beat/{rank}"])]
                not_started = [rank for rank in not_started if rank not in started]
                keys = [f"{kind}/{rank}" for rank in started for kind in ("beat", "end")]
                values = self._store.multi_get(keys) if keys else []
            except Exception as problem:  # the process that keeps the store has gone
                self._find(
                    f"The common store does not answer any more ({problem}): rank 0, or torchrun on its machine, which "
                    f"keeps it, has ended. {_WHAT_NOW}"
                )
                return
            for rank, beat, end in zip(started, values[0::2], values[1::2], strict=True):
                if end and end != b"done":
                    self._find(f"Rank {rank} ended: {end.decode()}")
                    return
                if end or beat != self._beats.get(rank):
                    self._beats[rank], self._last_change[rank] = beat, time.monotonic()
                    continue
                machine, process = json.loads(self._store.get(f"process/{rank}"))
                if machine == _machine():
                    if _is_gone(process):
                        self._find(f"Rank {rank} (process {process}) was killed. {_WHAT_NOW}")
                        return
                elif time.monotonic() - self._last_change[rank] > SILENT_SECONDS:
                    self._find(
                        f"Rank {rank} (on {machine.split()[0]}) has not been heard of for {SILENT_SECONDS:.0f} "
                        f"seconds: it was killed, or its machine has gone. {_WHAT_NOW}"
                    )
                    return

    def _find(self, loss: str) -> None:
        self._loss = loss
        self._has_found.set()
        if not self._is_over.wait(_SECONDS_TO_END_BY_ITSELF):
            print(f"the run failed: {loss}", file=sys.stderr, flush=True)
            os._exit(FAILED)


def _machine() -> str:
    """The name of this machine, and in which part of it process numbers mean the same."""
    try:
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbering = ""
    return f"{socket.gethostname()} {numbering}"


def _is_gone(process: int) -> bool:
    """Whether no such process runs on this machine; one that is dead and not yet buried does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False
