"""How one kind of device does all trainings of a recipe: what is best chosen there, and the time that it takes."""

from collections.abc import Iterator
from dataclasses import dataclass

from hornbook.model.config import ModelConfig
from hornbook.planning.advice import Advice, advise, why_not_shared
from hornbook.planning.flops import total_training_flops
from hornbook.planning.hardware import Device
from hornbook.planning.layout import Layout, layout_of
from hornbook.recipe import Recipe
from hornbook.recipe_parallel import SPREAD_STAGES
from hornbook.recipe_training import TrainingSection


@dataclass(frozen=True)
class DevicePlan:
    """How one kind of device does it: for each stage, the seconds, and what is best chosen there.

    n_devices: those of the stages that are spread; the others run on one of them while the rest waits. utilisation is
    the share of the device's rate that it is taken to reach, utilisation_is where that comes from. advice: None for a
    stage that does not fit, and for all where the device's memory is not known; the seconds are then those of the
    recipe's own settings. seconds: None where nothing fits.
    """

    device: Device
    n_devices: int
    utilisation: float
    utilisation_is: str
    seconds: dict[str, float | None]
    advice: dict[str, Advice | None]

    @property
    def total_seconds(self) -> float | None:
        """Of all stages; None where one does not fit."""
        known = [seconds for seconds in self.seconds.values() if seconds is not None]
        return sum(known) if len(known) == len(self.seconds) else None

    @property
    def rows_at_once(self) -> dict[str, int] | None:
        """What each stage computes at once; 0: not even one row fits. None where the device's memory is not known."""
        if self.device.memory_bytes is None:
            return None
        return {name: 0 if one is None else one.micro_batch_size for name, one in self.advice.items()}


def plan_on(
    recipe: Recipe, config: ModelConfig, device: Device, utilisation: float, utilisation_is: str, n_devices: int = 1
) -> DevicePlan:
    """The plan of a recipe's trainings on `n_devices` devices, of whose rate they reach the share `utilisation`."""
    advice: dict[str, Advice | None] = {}
    for sections, n, only in _together(recipe, n_devices):
        found = advise(config, sections, device, n, utilisation, only) or {}
        advice |= {name: found.get(name) for name in sections}
    seconds: dict[str, float | None] = {
        name: None if advised is None else advised.seconds for name, advised in advice.items()
    }
    if device.memory_bytes is None:
        rate = device.flops_per_second * utilisation
        for sections, n, _ in _together(recipe, n_devices):
            seconds |= {name: total_training_flops(config, section) / n / rate for name, section in sections.items()}
    return DevicePlan(device, n_devices, utilisation, utilisation_is, seconds, advice)


def not_advised(recipe: Recipe, config: ModelConfig, plan: DevicePlan) -> dict[str, str]:
    """For each stage that these devices cannot do, why."""
    if plan.device.memory_bytes is None:
        return {}
    why = {}
    for sections, n, only in _together(recipe, plan.n_devices):
        not_shared = why_not_shared(config, sections.values(), n, only)
        for name in sections:
            if plan.advice[name] is None:
                larger = (
                    "more or larger devices" if name in SPREAD_STAGES else "a larger device, for it takes one alone"
                )
                does_not_fit = f"nothing fits into the memory. Take shorter rows, a smaller model, or {larger}."
                why[name] = not_shared or does_not_fit
    return why


def _together(recipe: Recipe, n_devices: int) -> Iterator[tuple[dict[str, TrainingSection], int, Layout | None]]:
    """The trainings that are cut alike, over how many devices, and how the recipe asks for it: those that are spread,
    and each of the others, which one device computes."""
    sections: dict[str, TrainingSection] = {**recipe.training_sections}
    spread = {name: section for name, section in sections.items() if name in SPREAD_STAGES}
    if spread:
        yield spread, n_devices, layout_of(recipe, n_devices)
    for name, section in sections.items():
        if name not in spread:
            yield {name: section}, 1, None
