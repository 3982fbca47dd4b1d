"""What to choose before a run: rows at once, recomputation and the cut over devices, each with its reason.

All ways to spread a training over the devices are tried on paper, with each kind of recomputation and the most rows
that fit; the fastest wins, and of equally fast ones the simplest. The time is that of the operations at the share of
the peak that is assumed, of what is computed twice, of a pipeline's idle ends, and of what is sent and cannot be hidden
behind computing: what tensor parallelism sends, and of the rest what takes longer than the computing itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hornbook.model.config import ModelConfig
from hornbook.planning.communication import sent_bytes_per_step
from hornbook.planning.flops import flops_per_token, optimizer_flops_per_step
from hornbook.planning.hardware import Device
from hornbook.planning.layout import Layout
from hornbook.planning.memory import Memory, rows_that_fit, training_memory
from hornbook.planning.units import size
from hornbook.recipe_training import TrainingSection

Recompute = Literal["none", "selective", "full"]

DEVICES_OF_A_MACHINE = 8
NETWORK_BYTES_PER_SECOND = 50e9
"""Between machines, for each device: 400 Gbit/s, as a DGX H100 has."""
_ASSUMED_LINK_BYTES_PER_SECOND = 16e9
_NOTICEABLE = 0.01
_FROM_LEAST: tuple[Recompute, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class Advice:
    """The best way found for one stage on the devices; seconds for all of it. reasons: a sentence for each choice."""

    layout: Layout
    micro_batch_size: int
    recompute: Recompute
    memory: Memory
    seconds: float
    sent_bytes_per_step: dict[str, float]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Way:
    layout: Layout
    rows: int
    recompute: Recompute
    seconds: float


def advise(
    config: ModelConfig,
    section: TrainingSection,
    device: Device,
    n_devices: int,
    utilisation: float,
    only: Layout | None = None,
) -> Advice | None:
    """The best way to run a training section; None where none fits, and where the device's memory is not known.

    only: the layout that the recipe asks for. It is left aside where it takes another number of devices.
    """
    if device.memory_bytes is None:
        return None
    aside = only if only is not None and only.n_devices != n_devices else None
    if aside is not None:
        only = None
    ways = list(_ways(config, section, device, n_devices, utilisation, only))
    if not ways:
        return None
    fastest = min(way.seconds for way in ways)
    best = min(
        (way for way in ways if way.seconds <= (1 + _NOTICEABLE) * fastest),
        key=lambda way: (
            way.layout.pipeline,
            way.layout.tensor,
            _FROM_LEAST.index(way.recompute),
            way.layout.shard,
            -way.rows,
        ),
    )
    chosen = section.model_copy(update={"recompute": best.recompute})
    return Advice(
        layout=best.layout,
        micro_batch_size=best.rows,
        recompute=best.recompute,
        memory=training_memory(config, chosen, best.rows, device.kind, best.layout),
        seconds=best.seconds,
        sent_bytes_per_step=sent_bytes_per_step(config, chosen, best.layout, best.rows, _value_bytes(section)),
        reasons=(*_reasons(config, section, device, ways, best, only), *_left_aside(aside, n_devices)),
    )


def step_seconds(
    config: ModelConfig, section: TrainingSection, device: Device, utilisation: float, layout: Layout, rows: int
) -> float:
    """One step of a training section, cut so, with `rows` computed at once."""
    row_tokens = section.row_tokens or config.max_seq_len
    rate = device.flops_per_second * utilisation
    per_token = flops_per_token(config, row_tokens, section.recompute).total
    flops = section.global_batch_tokens * per_token + optimizer_flops_per_step(config, section.optimizer)
    computing = flops / layout.n_devices / rate
    micro_batches = max(1, section.global_batch_tokens // row_tokens // layout.data // max(1, rows))
    # The stages of a pipeline wait for its first micro-batch to arrive and for its last to come back.
    computing *= 1 + (layout.pipeline - 1) / micro_batches * layout.pipeline / layout.stages
    sent = sent_bytes_per_step(config, section, layout, rows, _value_bytes(section))
    near = device.link_bytes_per_second or _ASSUMED_LINK_BYTES_PER_SECOND
    far = near if layout.n_devices <= DEVICES_OF_A_MACHINE else min(near, NETWORK_BYTES_PER_SECOND)
    seen = sent.pop("tensor", 0.0) / (near if layout.tensor <= DEVICES_OF_A_MACHINE else far)
    return max(computing, sum(sent.values()) / far) + seen


def _ways(
    config: ModelConfig,
    section: TrainingSection,
    device: Device,
    n_devices: int,
    utilisation: float,
    only: Layout | None,
) -> Iterator[_Way]:
    """Every way that fits."""
    assert device.memory_bytes is not None
    steps = section.tokens // section.global_batch_tokens
    rows_of_step = section.global_batch_tokens // (section.row_tokens or config.max_seq_len)
    for layout in [only] if only is not None else _layouts(config, n_devices, rows_of_step):
        for recompute in _FROM_LEAST:
            tried = section.model_copy(update={"recompute": recompute, "micro_batch_size": None})
            rows = rows_that_fit(config, tried, device.memory_bytes, device.kind, layout)
            if rows:
                seconds = steps * step_seconds(config, tried, device, utilisation, layout, rows)
                yield _Way(layout, rows, recompute, seconds)


def _layouts(config: ModelConfig, n_devices: int, rows_of_step: int) -> Iterator[Layout]:
    for tensor in _powers(min(n_devices, DEVICES_OF_A_MACHINE)):
        if config.n_heads % tensor or config.n_kv_heads % tensor or config.d_ff % tensor or config.vocab_size % tensor:
            continue
        for pipeline in _powers(min(n_devices // tensor, config.n_layers)):
            data, left_over = divmod(n_devices, tensor * pipeline)
            if left_over or rows_of_step % data or rows_of_step // data < pipeline:
                continue
            yield Layout(shard=data, tensor=tensor, pipeline=pipeline)
            if data > 1:
                yield Layout(replicate=data, tensor=tensor, pipeline=pipeline)


def _powers(highest: int) -> Iterator[int]:
    power = 1
    while power <= highest:
        yield power
        power *= 2


def _reasons(
    config: ModelConfig, section: TrainingSection, device: Device, ways: list[_Way], best: _Way, only: Layout | None
) -> Iterator[str]:
    tried = section.model_copy(update={"recompute": best.recompute})
    needed = size(training_memory(config, tried, best.rows, device.kind, best.layout).total)
    assert device.memory_bytes is not None
    there = f" of {size(device.memory_bytes)}"
    rows_of_device = section.global_batch_tokens // (section.row_tokens or config.max_seq_len) // best.layout.data
    if best.rows >= rows_of_device:
        yield f"micro_batch_size {best.rows}: all rows that a device has in a step fit at once ({needed}{there})."
    else:
        double = size(training_memory(config, tried, 2 * best.rows, device.kind, best.layout).total)
        yield f"micro_batch_size {best.rows}: it needs {needed}{there}, and twice as many rows {double}."
    alike = {way.recompute: way for way in ways if way.layout == best.layout}
    if best.recompute == "none":
        yield "recompute none: everything fits, so nothing need be computed twice."
    elif "none" not in alike:
        yield f"recompute {best.recompute}: without it not even one row at a time fits."
    else:
        slower = alike["none"].seconds / best.seconds - 1
        yield f"recompute {best.recompute}: without it only {alike['none'].rows} rows fit, {slower:.0%} slower in all."
    if best.layout.n_devices == 1:
        return
    if only is not None:
        yield f"{best.layout}: as the recipe asks."
        return
    simple = [way for way in ways if way.layout.tensor == way.layout.pipeline == 1]
    if best.layout.tensor == best.layout.pipeline == 1:
        kind = "each device keeps a share of the weights" if best.layout.shard > 1 else "the whole model fits on each"
        yield f"{best.layout}: {kind}, and rows alone are shared out, which sends least."
    elif simple:
        slower = min(way.seconds for way in simple) / best.seconds - 1
        yield f"{best.layout}: sharing out rows alone fits too, but takes {slower:.0%} longer with what it sends."
    else:
        yield f"{best.layout}: sharing out rows and weights alone does not fit; the layers have to be cut."


def _left_aside(layout: Layout | None, n_devices: int) -> Iterator[str]:
    if layout is not None:
        devices = "device" if n_devices == 1 else "devices"
        yield f"the recipe's own {layout} takes {layout.n_devices} devices; this is the plan for {n_devices} {devices}."


def _value_bytes(section: TrainingSection) -> int:
    return 4 if section.precision == "float32" else 2
