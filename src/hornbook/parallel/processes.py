"""The processes of one command: started by torchrun, joined here, and of one mind about what goes on.

Without torchrun there is one process, rank 0, and nothing here costs anything. Rank 0 does alone what one process can
do, such as reading a corpus or writing metrics; the others wait for it at the common store, however long it takes.
"""

import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from hornbook.errors import FailedElsewhere, RunFailed, UserError
from hornbook.runtime import started_processes

_POLL_SECONDS = 0.05
_EXCHANGE_TIMEOUT = timedelta(minutes=30)


class Processes:
    """This process among `world_size`, and how rank 0 lets the others know. One alone: the default."""

    def __init__(self, rank: int = 0, world_size: int = 1, store: Any = None) -> None:
        self.rank, self.world_size = rank, world_size
        self._store, self._n_told = store, 0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which does what is done once."""
        return self.rank == 0

    def first_does(self, action: Callable[[], Any]) -> Any:
        """Rank 0 does it; all return what came of it, which must be what JSON can hold.

        All processes have to call it, in the same order. Where rank 0 fails, the others raise FailedElsewhere.
        """
        if self._store is None:
            return action()
        self._n_told += 1
        key = f"told/{self._n_told}"
        if self.is_first:
            try:
                result = action()
            except BaseException:
                self._store.set(key, json.dumps({"failed": True}))
                raise
            self._store.set(key, json.dumps({"result": result}))
            return result
        while not self._store.check([key]):
            time.sleep(_POLL_SECONDS)
        told = json.loads(self._store.get(key))
        if told.get("failed"):
            raise FailedElsewhere
        return told["result"]


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Within the block, the processes that torchrun started are one group; without torchrun there is this one.

    Where one of them dies, the others end with RunFailed, or are ended, within a minute.
    """
    if started_processes() is None:
        yield Processes()
        return
    import torch.distributed as dist

    from hornbook.parallel.watch import SILENT_SECONDS, Watch
    from hornbook.runtime import pick_device

    device = pick_device("auto")
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, world_size = next(dist.rendezvous("env://"))
    store.set_timeout(_EXCHANGE_TIMEOUT)
    # torchrun keeps the store when it starts all processes again. What they said before is not for the new ones.
    attempt = f"attempt/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store = dist.PrefixStore(attempt, store)
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("torch", store),
        rank=rank,
        world_size=world_size,
        timeout=_EXCHANGE_TIMEOUT,
        device_id=device if device.type == "cuda" else None,
    )
    # A connection of its own: on the other one, this process may be waiting.
    own_store = dist.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False
    )
    watch = Watch(dist.PrefixStore(f"{attempt}/watch", own_store), rank, world_size)
    previous_handler = signal.signal(signal.SIGTERM, watch.end_when_told)
    try:
        with warnings.catch_warnings():
            # Nothing here changes in place what a model returns.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            yield Processes(rank, world_size, dist.PrefixStore("processes", store))
    except (UserError, RunFailed, FailedElsewhere, KeyboardInterrupt) as failure:
        # All of them meet most failures together; then rank 0 speaks for all.
        watch.tell_end(str(failure) or "stopped")
        if rank == 0 or isinstance(failure, KeyboardInterrupt):
            raise
        raise FailedElsewhere from failure
    except Exception as failure:
        # An exchange breaks where a process has died; who that was, the watch finds out.
        lost = watch.lost(SILENT_SECONDS if _is_broken_exchange(failure) else 0.0)
        if lost is None:
            watch.tell_end(f"{type(failure).__name__}: {failure}".splitlines()[0])
            raise
        watch.stop()
        raise RunFailed(lost) from failure
    else:
        watch.stop()
        dist.barrier()
        dist.destroy_process_group()
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def _is_broken_exchange(failure: Exception) -> bool:
    text = str(failure).lower()
    return isinstance(failure, RuntimeError) and any(word in text for word in ("connection", "gloo", "nccl", "socket"))
