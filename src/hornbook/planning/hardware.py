"""The machines to plan for: accelerators from their datasheets, and this machine, measured.

The peaks are those of matrix products in the type named (bfloat16 with float32 sums; float16 on the T4 and V100, which
have no bfloat16), without sparsity: where a datasheet gives the rate with sparsity alone, half of it is taken. Each
device names its source. Of the bandwidth between devices it is the sum of both directions that datasheets give, so half
of that one way. No training reaches a peak; published ones run at 30 to 60 percent of it.
"""

import os
from dataclasses import dataclass
from typing import Literal

from hornbook.errors import UserError
from hornbook.runtime import Precision, measured_flops_per_second

_GB = 10**9


Kind = Literal["cpu", "accelerator"]


@dataclass(frozen=True)
class Device:
    """Something to train on. What is None is not known.

    bytes_per_second: of its memory. link_bytes_per_second: to another device of the same machine, one way.
    watts: at full load, of the device alone.
    """

    name: str
    flops_per_second: float
    memory_bytes: int | None
    kind: Kind = "accelerator"
    bytes_per_second: float | None = None
    link_bytes_per_second: float | None = None
    watts: float | None = None
    source: str = ""


def _gpu(name: str, tflops: float, gb: int, gb_per_second: float, link: float, watts: float, source: str) -> Device:
    """From a datasheet's units. `link` is in GB/s one way; where there is no NVLink it is PCIe's 16 lanes."""
    return Device(name, tflops * 1e12, gb * _GB, "accelerator", gb_per_second * 1e9, link * 1e9, watts, source)


ACCELERATORS = (
    _gpu("T4", 65.0, 16, 320, 16, 70, "NVIDIA T4 datasheet; float16"),
    _gpu("V100", 125.0, 32, 900, 150, 300, "NVIDIA V100 datasheet, SXM2 32 GB; float16"),
    _gpu("RTX 3090", 71.0, 24, 936, 32, 350, "NVIDIA GA102 whitepaper"),
    _gpu("RTX 4090", 165.2, 24, 1008, 32, 450, "NVIDIA Ada whitepaper"),
    _gpu("RTX 5090", 209.5, 32, 1792, 64, 575, "NVIDIA RTX Blackwell whitepaper"),
    _gpu("L4", 121.0, 24, 300, 32, 72, "NVIDIA L4 datasheet, half of the rate with sparsity"),
    _gpu("A10G", 70.0, 24, 600, 32, 300, "Amazon's G5: NVIDIA gives no datasheet, the rate is not certain"),
    _gpu("L40S", 362.0, 48, 864, 32, 350, "NVIDIA L40S datasheet"),
    _gpu("A100 40GB", 312.0, 40, 1555, 300, 400, "NVIDIA A100 datasheet, SXM"),
    _gpu("A100", 312.0, 80, 2039, 300, 400, "NVIDIA A100 datasheet, SXM 80 GB"),
    _gpu("H100", 989.4, 80, 3350, 450, 700, "NVIDIA H100 datasheet, SXM, half of the rate with sparsity"),
    _gpu("H200", 989.4, 141, 4800, 450, 700, "NVIDIA H200 datasheet, SXM, half of the rate with sparsity"),
    _gpu("B200", 2250.0, 180, 8000, 900, 1000, "NVIDIA DGX B200 datasheet, an eighth of the machine"),
    _gpu("MI300X", 1307.4, 192, 5300, 448, 750, "AMD Instinct MI300X datasheet"),
)


def device_named(name: str) -> Device:
    """The accelerator of that name, however it is written: "h100", "RTX-4090". Raises UserError where none has it."""

    def plain(text: str) -> str:
        return "".join(character for character in text.lower() if character.isalnum())

    found = [device for device in ACCELERATORS if plain(device.name) in (plain(name), f"rtx{plain(name)}")]
    if not found:
        names = ", ".join(device.name for device in ACCELERATORS)
        raise UserError(f"gpu: {name} is not in the table of hardware ({names}). Give --flops_per_second instead.")
    return found[0]


def this_machine(precision: Precision) -> Device:
    """The machine this runs on, with the rate of a large matrix product, measured in about a second.

    Its memory is that of its fastest device: the accelerator's own, or else the machine's. Imports torch.
    """
    import torch

    rate = measured_flops_per_second(precision)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Device(properties.name, rate, properties.total_memory, source="measured")
    return Device(
        f"this machine ({os.cpu_count()} cores)",
        rate,
        _main_memory_bytes(),
        "cpu",
        bytes_per_second=_measured_bytes_per_second(),
        source="measured",
    )


def _measured_bytes_per_second() -> float:
    """The rate at which this machine reads memory: the best of three sums over 128 MB."""
    import time

    import torch

    numbers = torch.ones(2**25)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        numbers.sum().item()
        seconds.append(time.perf_counter() - started)
    return numbers.nbytes / min(seconds)


def _main_memory_bytes() -> int | None:
    """The machine's memory; None on a system that does not say."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
