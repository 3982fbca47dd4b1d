"""Being asked to stop: Ctrl-C, or the SIGTERM that batch systems send before they kill.

The request is only noted. The trainer looks at it between two steps, when there is a state worth saving.
"""

import signal
import threading
from types import FrameType
from typing import Any

from hornbook.parallel.mesh import Mesh


class StopRequest:
    """While used as a context, notes SIGINT and SIGTERM in `signal_name`. A second SIGINT stops at once."""

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def agreed(self, mesh: Mesh) -> str | None:
        """The signal that any of the processes was sent, the same in all of them; None where there was none."""
        number = 0 if self.signal_name is None else signal.Signals[self.signal_name].value
        agreed = mesh.largest(number)
        return signal.Signals(agreed).name if agreed else None

    def __enter__(self) -> "StopRequest":
        # Python lets only the main thread handle signals; elsewhere whoever started the thread has to.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
