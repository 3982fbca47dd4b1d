"""The one thread in which the model computes: everybody's requests go in, and what they get comes out."""

import threading
from collections.abc import Callable

from hornbook.inference.batch import ContinuousBatch, Produced, Request

Deliver = Callable[[Produced | Exception], None]
"""Called in the worker's thread, once for each token, and once with the failure if there is one."""


class QueueFull(Exception):
    """Too many requests are waiting already."""


class Worker:
    """Steps a batch as long as there is something to do.

    max_waiting: requests that may wait for a row; one more is refused.
    """

    def __init__(self, batch: ContinuousBatch, max_waiting: int) -> None:
        self._batch, self._max_waiting = batch, max_waiting
        self._changed = threading.Condition()
        self._submitted: list[Request] = []
        self._deliver: dict[Request, Deliver] = {}
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End what is under way and wait until the thread has ended."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, requests: dict[Request, Deliver]) -> None:
        """Take in requests, all or none. Raises QueueFull."""
        with self._changed:
            if self.n_waiting + len(requests) > self._max_waiting + self._batch.n_rows - self._batch.n_active:
                raise QueueFull
            self._submitted += requests
            self._deliver |= requests
            self._changed.notify()

    @property
    def n_active(self) -> int:
        """Requests that have a row."""
        return self._batch.n_active

    @property
    def n_waiting(self) -> int:
        """Requests that have none yet."""
        return self._batch.n_waiting + len(self._submitted)

    @property
    def tokens_read(self) -> int:
        """Tokens that went through the model."""
        return self._batch.tokens_read

    @property
    def tokens_shared(self) -> int:
        """Tokens of prompts that did not have to, since another text had begun with them."""
        return self._batch.tokens_shared

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._submitted or self._batch.n_active or self._batch.n_waiting or self._is_stopping):
                    self._changed.wait()
                if self._is_stopping:
                    return
                for request in self._submitted:
                    self._batch.submit(request)
                self._submitted.clear()
            try:
                produced = self._batch.step()
            except Exception as failure:  # such as a device out of memory: those under way fail, the server goes on
                self._fail(failure)
                continue
            for one in produced:
                self._deliver[one.request](one)
            with self._changed:
                ended = [request for request in self._deliver if request.is_cancelled]
                ended += [one.request for one in produced if one.finish is not None]
                for request in ended:
                    self._deliver.pop(request, None)

    def _fail(self, failure: Exception) -> None:
        with self._changed:
            failed, self._deliver = self._deliver, {}
            for request, deliver in failed.items():
                request.is_cancelled = True
                deliver(failure)
