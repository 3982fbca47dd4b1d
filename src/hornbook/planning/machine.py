"""What a plan is made for: a device and how many of them, what they cost, and how much of their rate is reached."""

from dataclasses import dataclass

from hornbook.errors import UserError
from hornbook.planning.hardware import Device, device_named, this_machine
from hornbook.recipe_training import TrainingSection


@dataclass(frozen=True)
class Machine:
    """What to plan for. All None: this machine, measured.

    flops_per_second: of one device that is not in the table. gpu: one that is. price: dollars for an hour of one
    device. budget: dollars. utilisation: the share of its rate that training reaches, above 0 and at most 1.
    """

    flops_per_second: float | None = None
    gpu: str | None = None
    gpus: int = 1
    price: float | None = None
    budget: float | None = None
    utilisation: float | None = None

    def check(self) -> None:
        """Raise UserError where a number is out of its range, or two contradict each other."""
        if self.utilisation is not None and not 0 < self.utilisation <= 1:
            raise UserError(f"utilisation: must be above 0 and at most 1, but is {self.utilisation}")
        for name in ("flops_per_second", "gpus", "price", "budget"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{name}: must be greater than 0, but is {value}")
        if self.gpu is not None and self.flops_per_second is not None:
            raise UserError("gpu: names a device whose rate is known; leave out --flops_per_second, or --gpu.")
        if self.budget is not None and self.price is None:
            raise UserError("budget: needs the price of a device's hour as well, such as --price 2.5")
        if self.gpus > 1 and self.gpu is None and self.flops_per_second is None:
            raise UserError("gpus: needs the kind of device, such as --gpu h100, or --flops_per_second")

    def device(self, section: TrainingSection) -> Device:
        """The device itself."""
        if self.gpu is not None:
            return device_named(self.gpu)
        if self.flops_per_second is not None:
            return Device("the machine asked for", self.flops_per_second, None)
        return this_machine(section.precision)
