"""What to choose before a run: rows at once, recomputation and the cut over devices, each with its reason.

All ways to spread a training over the devices are tried on paper, with each kind of recomputation and the most rows
that fit; the fastest wins, and of equally fast ones the simplest. Stages that are spread have one cut together, since
a recipe has one section for it. The time is that of the operations at the share of
the peak that is assumed, of what is computed twice, of a pipeline's idle ends, and of what is sent and cannot be hidden
behind computing: what tensor parallelism sends, and of the rest what takes longer than the computing itself.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hornbook.model.config import ModelConfig
from hornbook.planning.communication import sent_bytes_per_step
from hornbook.planning.flops import flops_per_token, optimizer_flops_per_step
from hornbook.planning.hardware import Device
from hornbook.planning.layout import Layout, is_possible
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
    sections: Mapping[str, TrainingSection],
    device: Device,
    n_devices: int,
    utilisation: float,
    only: Layout | None = None,
) -> dict[str, Advice] | None:
    """The best way to run training sections, by name, all cut alike; None where none fits them all, and where the
    device's memory is not known.

    only: the layout that the recipe asks for. It is left aside where it takes another number of devices.
    """
    if device.memory_bytes is None:
        return None
    aside = only if only is not None and only.n_devices != n_devices else None
    if aside is not None:
        only = None
    ways: dict[Layout, list[list[_Way]]] = {}
    for layout in _layouts(config, sections.values(), only):
        if layout.n_devices == n_devices and _is_possible_for_all(layout, config, sections.values()):
            found = [list(_ways(config, section, device, utilisation, layout)) for section in sections.values()]
            if all(found):
                ways[layout] = found
    if not ways:
        return None
    best = {layout: [_best(each) for each in found] for layout, found in ways.items()}
    seconds = {layout: sum(way.seconds for way in each) for layout, each in best.items()}
    fastest = min(seconds.values())
    layout = min(
        (layout for layout in best if seconds[layout] <= (1 + _NOTICEABLE) * fastest),
        key=lambda layout: (
            layout.pipeline,
            layout.tensor,
            [_FROM_LEAST.index(way.recompute) for way in best[layout]],
            layout.shard,
        ),
    )
    why_cut = [*_why_cut(layout, seconds, only), *_left_aside(aside, n_devices)]
    advice = {}
    for (name, section), way, others in zip(sections.items(), best[layout], ways[layout], strict=True):
        chosen = section.model_copy(update={"recompute": way.recompute})
        advice[name] = Advice(
            layout=layout,
            micro_batch_size=way.rows,
            recompute=way.recompute,
            memory=training_memory(config, chosen, way.rows, device.kind, layout),
            seconds=way.seconds,
            sent_bytes_per_step=sent_bytes_per_step(config, chosen, layout, way.rows, _value_bytes(section)),
            reasons=(*_reasons(config, section, device, others, way), *why_cut),
        )
        why_cut = [] if n_devices == 1 else [f"{layout}: as {name}, for all that is spread is cut alike."]
    return advice


def why_not_shared(
    config: ModelConfig, sections: Collection[TrainingSection], n_devices: int, only: Layout | None = None
) -> str | None:
    """Why these sections cannot be cut alike over so many devices, whatever their memory; None where they can."""
    if only is not None and only.n_devices != n_devices:
        only = None
    layouts = _layouts(config, sections, only)
    counts = {layout.n_devices for layout in layouts if _is_possible_for_all(layout, config, sections)}
    if n_devices in counts:
        return None
    below, above = [n for n in counts if n < n_devices], [n for n in counts if n > n_devices]
    nearest = " or ".join(str(n) for n in (*sorted(below)[-1:], *sorted(above)[:1]))
    asked = "" if only is None else " as the recipe's section parallel asks"
    take = f"; take {nearest}" if nearest else ""
    return f"cannot be shared by {n_devices} devices{asked}: rows, heads or layers do not come out even{take}."


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


def _layouts(config: ModelConfig, sections: Collection[TrainingSection], only: Layout | None) -> Iterator[Layout]:
    """Every cut that shares out the rows of these sections evenly, over any number of devices; some are not possible
    for other reasons. With `only` that one, in any number of shards. Of context none is tried: it is for rows that
    nothing else makes fit.
    """
    rows = [section.global_batch_tokens // (section.row_tokens or config.max_seq_len) for section in sections]
    for data in _divisors(math.gcd(*rows)):
        if only is not None:
            yield replace(only, shard=data)
            continue
        for tensor in _powers(DEVICES_OF_A_MACHINE):
            for pipeline in _powers(config.n_layers):
                yield Layout(shard=data, tensor=tensor, pipeline=pipeline)
                if data > 1:
                    yield Layout(replicate=data, tensor=tensor, pipeline=pipeline)


def _is_possible_for_all(layout: Layout, config: ModelConfig, sections: Collection[TrainingSection]) -> bool:
    return all(is_possible(layout, config, section) for section in sections)


def _ways(
    config: ModelConfig, section: TrainingSection, device: Device, utilisation: float, layout: Layout
) -> Iterator[_Way]:
    """Every way to run a section in this layout that fits."""
    assert device.memory_bytes is not None
    steps = section.tokens // section.global_batch_tokens
    for recompute in _FROM_LEAST:
        tried = section.model_copy(update={"recompute": recompute, "micro_batch_size": None})
        rows = rows_that_fit(config, tried, device.memory_bytes, device.kind, layout)
        if rows:
            yield _Way(layout, rows, recompute, steps * step_seconds(config, tried, device, utilisation, layout, rows))


def _best(ways: Sequence[_Way]) -> _Way:
    """Of ways in one layout the fastest; of those within a percent that which computes least twice."""
    fastest = min(way.seconds for way in ways)
    return next(way for way in ways if way.seconds <= (1 + _NOTICEABLE) * fastest)


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def _powers(highest: int) -> Iterator[int]:
    power = 1
    while power <= highest:
        yield power
        power *= 2


def _reasons(
    config: ModelConfig, section: TrainingSection, device: Device, ways: Sequence[_Way], best: _Way
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
    alike = {way.recompute: way for way in ways}
    if best.recompute == "none":
        yield "recompute none: everything fits, so nothing need be computed twice."
    elif "none" not in alike:
        yield f"recompute {best.recompute}: without it not even one row at a time fits."
    else:
        slower = alike["none"].seconds / best.seconds - 1
        yield f"recompute {best.recompute}: without it only {alike['none'].rows} rows fit, {slower:.0%} slower in all."


def _why_cut(layout: Layout, seconds: Mapping[Layout, float], only: Layout | None) -> Iterator[str]:
    """Why this layout, of those that fit and the seconds that each takes."""
    if layout.n_devices == 1:
        return
    if only is not None:
        yield f"{layout}: as the recipe asks."
        return
    simple = [time for other, time in seconds.items() if other.tensor == other.pipeline == 1]
    if layout.tensor == layout.pipeline == 1:
        kind = "each device keeps a share of the weights" if layout.shard > 1 else "the whole model fits on each"
        yield f"{layout}: {kind}, and rows alone are shared out, which sends least."
    elif simple:
        slower = min(simple) / seconds[layout] - 1
        yield f"{layout}: sharing out rows alone fits too, but takes {slower:.0%} longer with what it sends."
    else:
        yield f"{layout}: sharing out rows and weights alone does not fit; the layers have to be cut."


def _left_aside(layout: Layout | None, n_devices: int) -> Iterator[str]:
    if layout is not None:
        devices = "device" if n_devices == 1 else "devices"
        yield f"the recipe's own {layout} takes {layout.n_devices} devices; this is the plan for {n_devices} {devices}."


def _value_bytes(section: TrainingSection) -> int:
    return 4 if section.precision == "float32" else 2
