"""The machine underneath: seeds, device and arithmetic. Nothing happens at import.

Randomness in Hornbook never comes from global state. Every draw is made by a generator whose seed is a hash
of what it is for (the run's seed, the stage, the step, the sample). So it survives a restart, a different
number of processes and a different order of work.
"""

import hashlib
import os
import time
from typing import TYPE_CHECKING, Literal

from hornbook.errors import UserError

if TYPE_CHECKING:
    import numpy
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits from what it is for, the same on every machine.

    The parts are hashed with their kinds and lengths, so ("ab", "c") and ("a", "bc"), or 1 and "1", differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = (f"str:{part}" if isinstance(part, str) else f"int:{int(part)}").encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def numpy_generator(*parts: int | str) -> "numpy.random.Generator":
    """A numpy generator for what the parts name, as in `derive_seed`."""
    import numpy

    return numpy.random.Generator(numpy.random.PCG64(derive_seed(*parts)))


def torch_generator(*parts: int | str) -> "torch.Generator":
    """A torch generator on the CPU for what the parts name, as in `derive_seed`."""
    import torch

    return torch.Generator().manual_seed(derive_seed(*parts))


def started_processes() -> int | None:
    """How many processes torchrun, or whatever else set its variables, started; None where nothing did."""
    return int(os.environ["WORLD_SIZE"]) if "WORLD_SIZE" in os.environ and "RANK" in os.environ else None


def pick_device(name: DeviceName = "auto") -> "torch.device":
    """The named device, or with "auto" the fastest kind that this machine has.

    Of several GPUs, each process of torchrun takes its own. Raises UserError where the named device is not there.
    """
    import torch

    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [kind for kind in is_there if is_there[kind]]
    if name != "auto" and name not in there:
        raise UserError(f"device: there is no {name} on this machine, but {' and '.join(there)}. Use auto.")
    device = torch.device(there[0] if name == "auto" else name)
    if device.type == "cuda" and started_processes() is not None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    return device


def pick_dtype(precision: Precision, device: "torch.device") -> "torch.dtype":
    """The type to compute in. "auto" is bfloat16 where the hardware multiplies it natively, else float32.

    float16 is never chosen: its range needs loss scaling, and on a CPU it is tens of times slower.
    """
    import torch

    if precision == "float32":
        return torch.float32
    if precision == "bfloat16":
        return torch.bfloat16
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: "torch.device") -> bool:
    """Whether the device has instructions for products in bfloat16, so that these are faster than in float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def precision_note(precision: Precision, device: "torch.device") -> str | None:
    """A sentence where training is slower than it could be, for want of hardware for `precision`; else None."""
    if precision == "float32" or device.type == "mps" or multiplies_bfloat16(device):
        return None
    if precision == "auto":
        return f"Computing in float32: this {device.type} has no instructions for bfloat16."
    return (
        f"Computing in bfloat16, which this {device.type} has no instructions for: it is emulated, and slower than "
        'float32. Set precision = "auto".'
    )


def measured_flops_per_second(precision: Precision = "auto", seconds: float = 0.5) -> float:
    """Floating point operations per second of a large matrix product, here and now.

    A rate that training comes near but never reaches; a plan multiplies it by an efficiency. Takes about
    `seconds` after a warm-up. The fastest of several goes counts: what other programs take of the machine meanwhile
    would make the peak too low, and training look better than it is.
    """
    import torch

    device = pick_device("auto")
    size = 8192 if device.type == "cuda" else 1024
    # Random numbers, whose products stay of one size: constant ones flatter a GPU, which then needs less power.
    generator = torch.Generator(device).manual_seed(derive_seed("measured_flops_per_second"))
    numbers = torch.randn(size, size, generator=generator, device=device)
    matrix = (numbers / size**0.5).to(pick_dtype(precision, device))

    def multiply(times: int) -> float:
        started = time.perf_counter()
        result = matrix
        for _ in range(times):
            result = result @ matrix
        result[0, 0].item()  # a device works in the background until a value is asked for
        return time.perf_counter() - started

    multiply(2)
    goes = 5
    times = max(1, int(seconds / goes / max(multiply(2) / 2, 1e-6)))
    return 2.0 * size**3 * times / min(multiply(times) for _ in range(goes))
