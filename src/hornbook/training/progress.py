"""How far a training is, for the person who watches: a panel on a terminal, elsewhere a plain line now and then."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from hornbook.training.memory import used_memory_bytes
from hornbook.training.metrics import BITS_PER_BYTE, Record

_PLAIN_LINE_INTERVAL_SECONDS = 10.0
_REFRESHES_PER_SECOND = 4
_WIDEST_PANEL = 88


@dataclass(frozen=True)
class Yardstick:
    """What a training is measured by while it runs: its speed, and its course.

    flops_per_token: what the model itself costs, forward and backward, without what is computed twice.
    peak_flops_per_second: the rate of a large matrix product on this device, measured. watch: what is to be warned of
    after a step, line by line, judged from the step's record.
    """

    flops_per_token: int
    peak_flops_per_second: float
    watch: Callable[[Record], Sequence[str]] = lambda record: ()

    def utilization(self, tokens_per_second: float) -> float:
        """Model FLOPs utilization, MFU (PaLM, arXiv 2204.02311, appendix B), as a fraction of the measured peak."""
        return tokens_per_second * self.flops_per_token / self.peak_flops_per_second


class ProgressDisplay:
    """Shows the record of each step. A context; `title` is the stage's name, `step` what is made already."""

    def __init__(
        self,
        console: Console,
        title: str,
        step: int,
        total_steps: int,
        device: torch.device,
        yardstick: Yardstick | None = None,
    ) -> None:
        self._console, self._title, self._total_steps = console, title, total_steps
        self._device, self._yardstick = device, yardstick
        # The time left is judged from the end of the first step on, because that one compiles.
        self._first_step, self._first_time = step + 1, 0.0
        self._last_line_time = time.monotonic()
        self._evaluation = ""
        self._record: Record = {"step": step, "loss_nats": None}
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(
                console=console, get_renderable=self._panel, refresh_per_second=_REFRESHES_PER_SECOND, transient=False
            )

    def __enter__(self) -> "ProgressDisplay":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, record: Record) -> None:
        """Show the record of the step that was just made."""
        if record["step"] == self._first_step:
            self._first_time = time.monotonic()
        for name, measured in record.get("evaluation", {}).items():
            if BITS_PER_BYTE in measured:
                self._evaluation = f"{name} {measured[BITS_PER_BYTE]:.3f} bits per byte"
        self._record = record
        for line in self._yardstick.watch(record) if self._yardstick is not None else ():
            self._console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
        if self._live is not None:
            return  # it asks for the panel by itself, a few times a second
        now = time.monotonic()
        is_last = record["step"] == self._total_steps
        if is_last or "evaluation" in record or now - self._last_line_time >= _PLAIN_LINE_INTERVAL_SECONDS:
            self._last_line_time = now
            parts = [f"{self._title}: step {record['step']}/{self._total_steps}", *self._figures()]
            self._console.print(", ".join(parts), highlight=False, soft_wrap=True)

    def _figures(self) -> list[str]:
        return [text for text in (self._loss(), self._evaluation, self._speed(), self._time_left()) if text]

    def _panel(self) -> RenderableType:
        record = self._record
        bar = ProgressBar(total=self._total_steps, completed=record["step"])
        steps = f"step {record['step']:,} of {self._total_steps:,}"
        table = Table.grid(padding=(0, 3))
        table.add_row(steps, self._time_left())
        table.add_row(self._loss(), self._evaluation)
        table.add_row(self._speed(), self._utilization())
        table.add_row(self._memory(), self._gradient())
        return Panel(Group(bar, table), title=self._title, title_align="left", width=_WIDEST_PANEL)

    def _loss(self) -> str:
        loss = self._record["loss_nats"]
        return "" if loss is None else f"loss {loss:.3f}"

    def _gradient(self) -> str:
        if self._record.get("grad_norm") is None:
            return ""
        return f"gradient {self._record['grad_norm']:.2f}, learning rate {self._record['lr']:.2g}"

    def _speed(self) -> str:
        speed = self._record.get("tokens_per_second")
        return "" if speed is None else f"{speed:,.0f} tokens/s"

    def _utilization(self) -> str:
        speed = self._record.get("tokens_per_second")
        if speed is None or self._yardstick is None:
            return ""
        share, peak = self._yardstick.utilization(speed), self._yardstick.peak_flops_per_second
        return f"MFU {share:.0%} of {peak / 1e9:,.0f} GFLOP/s measured"

    def _memory(self) -> str:
        used = used_memory_bytes(self._device)
        return "" if used is None else f"{used / 1e9:.2f} GB in use"

    def _time_left(self) -> str:
        steps_made = self._record["step"] - self._first_step
        if steps_made <= 0 or not self._first_time:
            return ""
        seconds_per_step = (time.monotonic() - self._first_time) / steps_made
        return f"{duration(seconds_per_step * (self._total_steps - self._record['step']))} left"


def duration(seconds: float) -> str:
    """A time as a person would say it."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
