"""`hornbook plan`: what a recipe will make, need and cost, and what to choose, before anything is spent.

Parameters and operations are counted (flops.py), memory is counted by part (memory.py), and time follows from the
operations, the rate of the machine and the share of that rate that training is taken to reach: measured with this very
model where the machine is this one and the model small, else a published usual. From these come the advice (advice.py),
the cost and what a budget would buy (budget.py), and the curves to expect (expected.py).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from hornbook.depth import settings_of
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.model.huggingface_config import read_config
from hornbook.planning.advice import Advice, Recompute
from hornbook.planning.budget import (
    CHINCHILLA_TOKENS_PER_PARAMETER,
    BestSize,
    Cost,
    Serving,
    best_size,
    cost_of,
    flops_for,
    serving,
)
from hornbook.planning.device_plan import DevicePlan, not_advised, plan_on
from hornbook.planning.expected import Beginning, Expectation, compared_settings, expectation, recorded_of
from hornbook.planning.flops import (
    TokenFlops,
    flops_per_token,
    optimizer_flops_per_step,
    parameters_by_part,
    total_training_flops,
)
from hornbook.planning.hardware import ACCELERATORS, Kind
from hornbook.planning.ladder import counted_parameters
from hornbook.planning.law import Law
from hornbook.planning.machine import Machine
from hornbook.planning.memory import Memory, most_rows_at_once, training_memory
from hornbook.planning.probe import measured_utilisation
from hornbook.planning.tables import render_plan
from hornbook.recipe import Recipe
from hornbook.recipe_training import TrainingSection

DEFAULT_UTILISATION: dict[Kind, float] = {"cpu": 0.2, "accelerator": 0.4}
"""The share of a device's rate that training reaches. Published trainings on accelerators report 0.3 to 0.6 of the
peak (PaLM .46, TinyLlama .56). On a CPU the quickstart's model reached 0.2: small matrices, and much between them."""

_LONG_RUN_SECONDS = 3600.0
"""A run that takes longer is shown on accelerators as well."""


@dataclass(frozen=True)
class StagePlan:
    """What one stage of training needs with the recipe's own settings, wherever it runs.

    Memory is for the kind of machine that was asked about: with one row computed at once, the least there is,
    and with the most rows that training tries.
    """

    name: str
    tokens: int
    steps: int
    row_tokens: int
    rows_per_step: int
    recompute: Recompute
    flops_per_token: TokenFlops
    optimizer_flops_per_step: int
    total_flops: int
    most_rows_at_once: int
    memory_bytes_of_one_row: Memory
    memory_bytes_of_most_rows: Memory


@dataclass(frozen=True)
class Plan:
    """The plan of a recipe. `devices` begins with the machine that was asked about.

    settings: what decides the model's shape and its pretraining; depth_gives: what `model.depth` alone would have
    made of them, where the recipe turns that dial. tokens_per_parameter: of pretraining, where there is any.
    not_advised: for each stage that the devices cannot do, why. cost: None where there is such a stage. budget: the
    best size for the dollars given, or for this run's own operations where none are. expected: the curve of each stage
    of which something is known beforehand; without a reference, fine-tuning begins at its base model's loss, and that
    is known when it begins.
    """

    recipe: str
    vocab_size: int
    settings: dict[str, int | float]
    depth_gives: dict[str, int | float] | None
    parameters: dict[str, int]
    tokens_per_parameter: float | None
    stages: tuple[StagePlan, ...]
    devices: tuple[DevicePlan, ...]
    not_advised: dict[str, str]
    cost: Cost | None
    budget: BestSize | None
    serving: tuple[Serving, ...]
    expected: dict[str, Expectation]

    @property
    def advice(self) -> dict[str, Advice | None]:
        """For each stage what to choose on the machine that was asked about."""
        return self.devices[0].advice

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
            written["rows_at_once"] = device.rows_at_once
        table["advice"] = table["devices"][0]["advice"]
        return table


def plan_recipe(
    recipe: Recipe,
    flops_per_second: float | None = None,
    utilisation: float | None = None,
    machine: Machine | None = None,
    reference: Mapping[str, Any] | None = None,
    law: Law | None = None,
) -> Plan:
    """Plan a recipe for a machine; without one, for a device of `flops_per_second`, or where that is None for this
    machine, measured. The curves to expect are from the recipe's reference and law, where they are given.

    torch is imported only to measure. Raises UserError where a number is out of its range or the recipe's model cannot
    be.
    """
    machine = machine or Machine(flops_per_second=flops_per_second, utilisation=utilisation)
    machine.check()
    config = planned_config(recipe)
    sections: dict[str, TrainingSection] = {**recipe.training_sections}
    first = next(iter(sections.values()))
    device = machine.device(first)
    reached, reached_is = machine.utilisation, "as given"
    if reached is None and device.kind == "cpu":
        reached, reached_is = measured_utilisation(config, first, device), "measured with this model"
    if reached is None:
        reached, reached_is = DEFAULT_UTILISATION[device.kind], "assumed"

    parameters = parameters_by_part(config)
    devices = [plan_on(recipe, config, device, reached, reached_is, machine.gpus)]
    seconds = devices[0].total_seconds
    if machine.gpu is None and (seconds is None or seconds > _LONG_RUN_SECONDS):
        share = machine.utilisation or DEFAULT_UTILISATION["accelerator"]
        given = "assumed" if machine.utilisation is None else "as given"
        devices += [plan_on(recipe, config, other, share, given) for other in ACCELERATORS]
    total_flops = sum(total_training_flops(config, section) for section in sections.values())
    if machine.budget is not None and machine.price is not None:
        total_flops = int(flops_for(machine.budget, machine.price, device, reached))
    return Plan(
        recipe=recipe.name,
        vocab_size=config.vocab_size,
        settings=_settings(config, recipe.pretrain),
        depth_gives=_depth_gives(recipe),
        parameters=parameters,
        tokens_per_parameter=recipe.pretrain.tokens / sum(parameters.values()) if recipe.pretrain else None,
        stages=tuple(_stage_plan(name, config, section, device.kind) for name, section in sections.items()),
        devices=tuple(devices),
        not_advised=not_advised(recipe, config, devices[0]),
        cost=None if seconds is None else cost_of(device, machine.gpus, seconds, machine.price),
        budget=best_size(total_flops),
        serving=serving(config, device, reached),
        expected=_expected(recipe, config, sections, reference, law),
    )


def planned_config(recipe: Recipe) -> ModelConfig:
    """The shape of the model that a recipe trains: its own, or that of the folder it goes on from."""
    if recipe.origin is not None:
        return read_config(Path(recipe.origin))
    return config_from_recipe(recipe.model, recipe.tokenizer.vocab_size)


def advised_fields(plan: Plan, recipe: Recipe) -> dict[str, Any]:
    """The advice as fields of the recipe: {"pretrain.micro_batch_size": 8}.

    The cut is among them where the recipe has a section for it: without one it takes any number of devices.
    """
    fields: dict[str, Any] = {}
    for name, advice in plan.advice.items():
        if advice is None:
            continue
        fields |= {f"{name}.micro_batch_size": advice.micro_batch_size, f"{name}.recompute": advice.recompute}
        if advice.layout.n_devices > 1 and "parallel" in recipe.model_fields_set:
            fields |= {f"parallel.{cut}": number for cut, number in vars(advice.layout).items()}
    return fields


def _expected(
    recipe: Recipe,
    config: ModelConfig,
    sections: dict[str, TrainingSection],
    reference: Mapping[str, Any] | None,
    law: Law | None,
) -> dict[str, Expectation]:
    found = {}
    for name, section in sections.items():
        settings = compared_settings(config, section)
        is_new = name == "pretrain" and recipe.origin is None
        is_recorded = reference is not None and recorded_of(reference, name, settings) is not None
        if is_new or name == "preference" or is_recorded:
            beginning = Beginning(name, section.tokens, config.vocab_size, counted_parameters(config), settings)
            found[name] = expectation(beginning, reference, law)
    return found


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
        recompute=section.recompute,
        flops_per_token=flops_per_token(config, row_tokens, section.recompute),
        optimizer_flops_per_step=optimizer_flops_per_step(config, section.optimizer),
        total_flops=total_training_flops(config, section),
        most_rows_at_once=most_rows,
        memory_bytes_of_one_row=training_memory(config, section, 1, kind),
        memory_bytes_of_most_rows=training_memory(config, section, most_rows, kind),
    )
