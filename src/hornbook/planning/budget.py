"""What a plan costs, and what a budget buys: money, energy, the best size and the speed of the finished model."""

import math
from dataclasses import dataclass

from hornbook.errors import UserError
from hornbook.model.config import ModelConfig
from hornbook.planning.flops import matrix_parameters, parameters_by_part
from hornbook.planning.hardware import Device
from hornbook.planning.memory import cache_bytes_per_token, serving_memory

CHINCHILLA_TOKENS_PER_PARAMETER = 20
"""Where a given amount of computing is best spent (Hoffmann et al., arXiv 2203.15556, table 3)."""

_ANSWERS_AT_ONCE = (1, 16)
_READ_FRACTION = 0.7
"""The share of its memory's rate that generation reaches. A guess from published measurements; not studied here."""


@dataclass(frozen=True)
class Cost:
    """What the devices of a run cost. kilowatt_hours: of the devices alone, at full load; cooling and hosts add some
    tens of percent. None where no price or no wattage is known."""

    device_hours: float
    dollars: float | None
    kilowatt_hours: float | None


@dataclass(frozen=True)
class BestSize:
    """What a budget is best spent on: so many parameters, trained on so many tokens."""

    flops: float
    parameters: float
    tokens: float


@dataclass(frozen=True)
class Serving:
    """The finished model on one device in bfloat16: bytes, and tokens it writes in a second for all answers together.

    tokens_per_second is None where the rate of the device's memory is not known. first_token_seconds: reading a full
    row before the first token.
    """

    answers_at_once: int
    weights_bytes: int
    cache_bytes: int
    tokens_per_second: float | None
    first_token_seconds: float


def cost_of(device: Device, n_devices: int, seconds: float, price: float | None) -> Cost:
    """What so many seconds on these devices cost at `price` dollars for an hour of one."""
    hours = n_devices * seconds / 3600
    return Cost(
        device_hours=hours,
        dollars=None if price is None else hours * price,
        kilowatt_hours=None if device.watts is None else hours * device.watts / 1000,
    )


def best_size(flops: float) -> BestSize:
    """The size that a number of operations is best spent on: 6 N D of them, with D = 20 N."""
    parameters = math.sqrt(flops / (6 * CHINCHILLA_TOKENS_PER_PARAMETER))
    return BestSize(flops, parameters, CHINCHILLA_TOKENS_PER_PARAMETER * parameters)


def flops_for(budget: float, price: float, device: Device, utilisation: float) -> float:
    """The operations that `budget` dollars buy at `price` dollars for an hour of a device.

    Raises UserError where they are beyond all numbers.
    """
    flops = budget / price * 3600 * device.flops_per_second * utilisation
    if not math.isfinite(flops):
        raise UserError(f"budget: ${budget:g} at ${price:g} an hour buy more operations than a number can hold")
    return flops


def serving(config: ModelConfig, device: Device, utilisation: float) -> tuple[Serving, ...]:
    """The finished model, answering one and sixteen at a time.

    A token is written by reading all weights and the answer's cache, half full on average, from memory: that, and not
    computing, is what it takes (Pope et al. 2022, arXiv 2211.05102).
    """
    matrices = matrix_parameters(config) + config.vocab_size * config.d_model
    found = []
    for answers in _ANSWERS_AT_ONCE:
        needed = serving_memory(config, answers)
        read = 2 * matrices + answers * cache_bytes_per_token(config) * config.max_seq_len / 2
        rate = device.bytes_per_second
        speed = None
        if rate is not None:
            seconds = max(read / (_READ_FRACTION * rate), 2 * matrices * answers / device.flops_per_second)
            speed = answers / seconds
        first = 2 * matrices * config.max_seq_len / (device.flops_per_second * utilisation)
        found.append(Serving(answers, needed["weights"], needed["cache"], speed, first))
    return tuple(found)


def n_parameters(config: ModelConfig) -> int:
    """All parameters of a model."""
    return sum(parameters_by_part(config).values())
