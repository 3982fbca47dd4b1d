"""The machines to plan for: a few accelerators from their datasheets, and this machine, measured.

The peaks are those of bfloat16 matrix products with float32 sums, without sparsity, from the makers' papers:
NVIDIA's A100, H100, H200 and L4 Tensor Core GPU datasheets (where a datasheet gives the rate with sparsity
alone, half of it is taken), its GA102 (RTX 3090) and Ada (RTX 4090) architecture whitepapers, its DGX B200
datasheet (an eighth of the whole machine), and AMD's Instinct MI300X datasheet. No training reaches a peak;
published ones run at 30 to 60 percent of it.
"""

import os
from dataclasses import dataclass
from typing import Literal

from hornbook.runtime import Precision, measured_flops_per_second

_GB = 10**9


Kind = Literal["cpu", "accelerator"]


@dataclass(frozen=True)
class Device:
    """Something to train on. memory_bytes is None where it is not known."""

    name: str
    flops_per_second: float
    memory_bytes: int | None
    kind: Kind = "accelerator"


ACCELERATORS = (
    Device("RTX 3090", 71.0e12, 24 * _GB),
    Device("RTX 4090", 165.2e12, 24 * _GB),
    Device("L4", 121.0e12, 24 * _GB),
    Device("A100 80GB", 312.0e12, 80 * _GB),
    Device("H100 SXM", 989.4e12, 80 * _GB),
    Device("H200 SXM", 989.4e12, 141 * _GB),
    Device("B200", 2250.0e12, 180 * _GB),
    Device("MI300X", 1307.4e12, 192 * _GB),
)


def this_machine(precision: Precision) -> Device:
    """The machine this runs on, with the rate of a large matrix product, measured in about a second.

    Its memory is that of its fastest device: the accelerator's own, or else the machine's. Imports torch.
    """
    import torch

    rate = measured_flops_per_second(precision)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Device(properties.name, rate, properties.total_memory)
    return Device(f"this machine ({os.cpu_count()} cores)", rate, _main_memory_bytes(), "cpu")


def _main_memory_bytes() -> int | None:
    """The machine's memory; None on a system that does not say."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
