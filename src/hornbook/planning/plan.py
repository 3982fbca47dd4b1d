"""`hornbook plan`: what a recipe will make and need, on this machine or another, before anything is spent.

Parameters and operations are counted (see flops.py), memory is estimated (memory.py), and time follows from
the operations, the rate of the machine and the share of that rate that training is taken to reach.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from hornbook.depth import settings_of
from hornbook.errors import UserError
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.model.huggingface_config import read_config
from hornbook.planning.flops import (
    TokenFlops,
    flops_per_token,
    optimizer_flops_per_step,
    parameters_by_part,
    total_training_flops,
)
from hornbook.planning.hardware import ACCELERATORS, Device, Kind, this_machine
from hornbook.planning.memory import Memory, most_rows_at_once, rows_that_fit, training_memory
from hornbook.planning.tables import render_plan
from hornbook.recipe import Recipe
from hornbook.recipe_training import TrainingSection

DEFAULT_UTILISATION: dict[Kind, float] = {"cpu": 0.2, "accelerator": 0.4}
"""The share of a device's rate that training reaches. Published trainings on accelerators report 0.3 to 0.6 of the
peak (PaLM .46, TinyLlama .56). On a CPU the quickstart's model reached 0.2: small matrices, and much between them."""

CHINCHILLA_TOKENS_PER_PARAMETER = 20
"""Where a given amount of computing is best spent (Hoffmann et al., arXiv 2203.15556, table 3)."""

_LONG_RUN_SECONDS = 3600.0
"""A run that takes longer is shown on accelerators as well."""


@dataclass(frozen=True)
class StagePlan:
    """What one stage of training needs, wherever it runs.

    Memory is for the kind of machine that was asked about: with one row computed at once, the least there is,
    and with the most rows that training tries.
    """

    name: str
    tokens: int
    steps: int
    row_tokens: int
    rows_per_step: int
    flops_per_token: TokenFlops
    optimizer_flops_per_step: int
    total_flops: int
    most_rows_at_once: int
    memory_bytes_of_one_row: Memory
    memory_bytes_of_most_rows: Memory


@dataclass(frozen=True)
class DevicePlan:
    """How one device does it: for each stage, the seconds, and the rows that it computes at once.

    utilisation is the share of the device's rate that it is taken to reach. rows_at_once is None where the
    device's memory is not known; 0 rows: not even one fits.
    """

    device: Device
    utilisation: float
    seconds: dict[str, float]
    rows_at_once: dict[str, int] | None

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Plan:
    """The plan of a recipe. `devices` begins with the machine that was asked about.

    settings: what decides the model's shape and its pretraining; depth_gives: what `model.depth` alone would have
    made of them, where the recipe turns that dial. tokens_per_parameter: of pretraining, where there is any.
    """

    recipe: str
    vocab_size: int
    settings: dict[str, int | float]
    depth_gives: dict[str, int | float] | None
    parameters: dict[str, int]
    tokens_per_parameter: float | None
    stages: tuple[StagePlan, ...]
    devices: tuple[DevicePlan, ...]

    @property
    def n_parameters(self) -> int:
        return sum(self.parameters.values())

    @property
    def compute_optimal_tokens(self) -> int:
        """The tokens that a model of this size should see if computing is what is scarce."""
        return CHINCHILLA_TOKENS_PER_PARAMETER * self.n_parameters

    def to_json(self) -> str:
        """All figures, with their totals; units stand in the names."""
        return json.dumps(self._as_table(), indent=2)

    def render(self, console: Console) -> None:
        """Print it for a person."""
        render_plan(self, console)

    def _as_table(self) -> dict[str, Any]:
        table = asdict(self)
        table["n_parameters"] = self.n_parameters
        table["compute_optimal_tokens"] = self.compute_optimal_tokens
        table["total_flops"] = sum(stage.total_flops for stage in self.stages)
        for stage, written in zip(self.stages, table["stages"], strict=True):
            written["flops_per_token"]["total"] = stage.flops_per_token.total
            written["memory_bytes_of_one_row"]["total"] = stage.memory_bytes_of_one_row.total
            written["memory_bytes_of_most_rows"]["total"] = stage.memory_bytes_of_most_rows.total
        for device, written in zip(self.devices, table["devices"], strict=True):
            written["total_seconds"] = device.total_seconds
        return table


def plan_recipe(recipe: Recipe, flops_per_second: float | None = None, utilisation: float | None = None) -> Plan:
    """Plan a recipe for a machine of `flops_per_second`, or where that is None for this one, measured.

    `utilisation` is the share of the rate that training reaches, above 0 and at most 1; by default it follows the
    kind of device. torch is imported only to measure. Raises UserError where a number is out of its range or the
    recipe's model cannot be.
    """
    if utilisation is not None and not 0 < utilisation <= 1:
        raise UserError(f"utilisation: must be above 0 and at most 1, but is {utilisation}")
    if flops_per_second is not None and not 0 < flops_per_second < float("inf"):
        raise UserError(f"flops_per_second: must be greater than 0, but is {flops_per_second}")
    if recipe.origin is None:
        config = config_from_recipe(recipe.model, recipe.tokenizer.vocab_size)
    else:
        config = read_config(Path(recipe.origin))
    sections: dict[str, TrainingSection] = {**recipe.training_sections}

    if flops_per_second is None:
        machine = this_machine(next(iter(sections.values())).precision)
    else:
        machine = Device("the machine asked for", flops_per_second, None)
    parameters = parameters_by_part(config)
    devices = [_device_plan(machine, config, sections, utilisation)]
    if devices[0].total_seconds > _LONG_RUN_SECONDS:
        devices += [_device_plan(device, config, sections, utilisation) for device in ACCELERATORS]
    return Plan(
        recipe=recipe.name,
        vocab_size=config.vocab_size,
        settings=_settings(config, recipe.pretrain),
        depth_gives=_depth_gives(recipe),
        parameters=parameters,
        tokens_per_parameter=recipe.pretrain.tokens / sum(parameters.values()) if recipe.pretrain else None,
        stages=tuple(_stage_plan(name, config, section, machine.kind) for name, section in sections.items()),
        devices=tuple(devices),
    )


def _settings(config: ModelConfig, pretrain: TrainingSection | None) -> dict[str, int | float]:
    shape = ("n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff", "max_seq_len")
    settings = {f"model.{name}": getattr(config, name) for name in shape}
    if pretrain is None:
        return settings
    training = ("tokens", "global_batch_tokens", "lr", "muon_lr")
    return settings | {f"pretrain.{name}": getattr(pretrain, name) for name in training}


def _depth_gives(recipe: Recipe) -> dict[str, int | float] | None:
    if recipe.model.depth is None:
        return None
    dialled = settings_of({"depth": recipe.model.depth}, {}, recipe.tokenizer.vocab_size)
    return {f"{section}.{name}": value for section, settings in dialled.items() for name, value in settings.items()}


def _stage_plan(name: str, config: ModelConfig, section: TrainingSection, kind: Kind) -> StagePlan:
    row_tokens = section.row_tokens or config.max_seq_len
    most_rows = most_rows_at_once(config, section)
    return StagePlan(
        name=name,
        tokens=section.tokens,
        steps=section.tokens // section.global_batch_tokens,
        row_tokens=row_tokens,
        rows_per_step=section.global_batch_tokens // row_tokens,
        flops_per_token=flops_per_token(config, row_tokens, section.recompute),
        optimizer_flops_per_step=optimizer_flops_per_step(config, section.optimizer),
        total_flops=total_training_flops(config, section),
        most_rows_at_once=most_rows,
        memory_bytes_of_one_row=training_memory(config, section, 1, kind),
        memory_bytes_of_most_rows=training_memory(config, section, most_rows, kind),
    )


def _device_plan(
    device: Device, config: ModelConfig, sections: dict[str, TrainingSection], utilisation: float | None
) -> DevicePlan:
    utilisation = utilisation or DEFAULT_UTILISATION[device.kind]
    rate = device.flops_per_second * utilisation
    seconds = {name: total_training_flops(config, section) / rate for name, section in sections.items()}
    rows_at_once = None
    if device.memory_bytes is not None:
        rows_at_once = {
            name: rows_that_fit(config, section, device.memory_bytes, device.kind) for name, section in sections.items()
        }
    return DevicePlan(device, utilisation, seconds, rows_at_once)
