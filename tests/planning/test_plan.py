"""The plan of the recipes that come with Hornbook: its figures, its text, and that it needs no torch."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hornbook.errors import UserError
from hornbook.model.config import config_from_recipe
from hornbook.planning import machine as machine_module
from hornbook.planning import plan as plan_module
from hornbook.planning.flops import total_training_flops
from hornbook.planning.hardware import ACCELERATORS, Device, this_machine
from hornbook.planning.plan import Plan, plan_recipe
from hornbook.planning.units import duration, quantity, size
from hornbook.recipe import Recipe, load_recipe


@pytest.fixture
def quickstart(recipes_directory: Path) -> Recipe:
    return load_recipe(recipes_directory / "quickstart.toml")


def _text(plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=160)
    plan.render(console)
    return console.file.getvalue()


def test_time_is_operations_over_the_rate_that_is_reached(quickstart: Recipe) -> None:
    plan = plan_recipe(quickstart, flops_per_second=1e12, utilisation=0.25)
    config = config_from_recipe(quickstart.model, quickstart.tokenizer.vocab_size)

    expected = total_training_flops(config, quickstart.pretrain) / 0.25e12
    assert plan.devices[0].seconds["pretrain"] == pytest.approx(expected)
    assert plan.devices[0].total_seconds == pytest.approx(sum(plan.devices[0].seconds.values()))


def test_a_cpu_is_not_taken_to_reach_what_an_accelerator_does(
    quickstart: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "this_machine", lambda precision: Device("measured", 1e12, None, "cpu"))
    monkeypatch.setattr(plan_module, "measured_utilisation", lambda config, section, device: None)
    cpu, accelerator = (plan_recipe(quickstart, rate).devices[0] for rate in (None, 1e12))

    assert cpu.utilisation < accelerator.utilisation
    assert cpu.total_seconds * cpu.utilisation == pytest.approx(accelerator.total_seconds * accelerator.utilisation)


def test_a_stage_has_the_recipes_tokens_and_steps(quickstart: Recipe) -> None:
    plan = plan_recipe(quickstart, flops_per_second=1e12)

    assert [stage.name for stage in plan.stages] == ["pretrain", "finetune", "preference", "reinforce"]
    stage = plan.stages[0]
    assert stage.steps * stage.rows_per_step * stage.row_tokens == stage.tokens == quickstart.pretrain.tokens
    assert plan.tokens_per_parameter == pytest.approx(quickstart.pretrain.tokens / plan.n_parameters)
    assert plan.compute_optimal_tokens == 20 * plan.n_parameters


def test_a_recipe_without_fine_tuning_has_one_stage(recipes_directory: Path) -> None:
    plan = plan_recipe(load_recipe(recipes_directory / "gpt2-124m.toml"), flops_per_second=1e15)

    assert [stage.name for stage in plan.stages] == ["pretrain"]


def test_a_long_run_is_shown_on_accelerators_and_a_short_one_is_not(
    quickstart: Recipe, recipes_directory: Path
) -> None:
    long = plan_recipe(load_recipe(recipes_directory / "llama-1b.toml"), flops_per_second=1e12)
    short = plan_recipe(quickstart, flops_per_second=1e12)

    assert [plan.device for plan in long.devices[1:]] == list(ACCELERATORS)
    assert len(short.devices) == 1
    rows = {plan.device.name: plan.rows_at_once for plan in long.devices}
    assert rows["RTX 4090"] == {"pretrain": 0}
    assert rows["H100"]["pretrain"] > 0
    assert rows["the machine asked for"] is None


def test_json_has_every_figure_and_its_totals(quickstart: Recipe) -> None:
    plan = plan_recipe(quickstart, flops_per_second=1e12)
    table = json.loads(plan.to_json())

    assert table["n_parameters"] == sum(table["parameters"].values()) == plan.n_parameters
    stage = table["stages"][0]
    memory = dict(stage["memory_bytes_of_one_row"])
    assert memory.pop("total") == sum(memory.values())
    assert stage["flops_per_token"]["total"] == plan.stages[0].flops_per_token.total
    assert table["total_flops"] == sum(stage["total_flops"] for stage in table["stages"])
    assert table["devices"][0]["total_seconds"] == pytest.approx(plan.devices[0].total_seconds)


@pytest.mark.parametrize("name", ["quickstart", "storyworld", "tinystories", "gpt2-124m", "llama-1b"])
def test_a_person_reads_parameters_operations_memory_and_time(name: str, recipes_directory: Path) -> None:
    plan = plan_recipe(load_recipe(recipes_directory / f"{name}.toml"), flops_per_second=2e12)
    text = _text(plan)

    assert name in text
    assert f"{plan.n_parameters:,}" in text
    assert f"{plan.stages[0].tokens:,}" in text
    assert duration(plan.devices[0].seconds["pretrain"]) in text
    assert "an estimate" in text
    assert "40%" in text


def test_without_a_rate_this_machine_is_measured(quickstart: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Device("measured", 5e12, 10**10, "cpu")
    monkeypatch.setattr(machine_module, "this_machine", lambda precision: machine)
    monkeypatch.setattr(plan_module, "measured_utilisation", lambda config, section, device: None)
    plan = plan_recipe(quickstart)

    assert plan.devices[0].device == machine
    assert plan.devices[0].rows_at_once == {stage.name: stage.rows_per_step for stage in plan.stages}  # all fit


def test_this_machine_has_a_rate_and_a_memory() -> None:
    machine = this_machine("float32")

    assert 1e8 < machine.flops_per_second < 1e17
    assert machine.memory_bytes is None or machine.memory_bytes > 10**8


@pytest.mark.parametrize(
    "options",
    [{"flops_per_second": 0.0}, {"flops_per_second": -1.0}, {"flops_per_second": 1.0, "utilisation": 1.5}],
)
def test_a_rate_or_share_that_cannot_be_is_the_users_error(quickstart: Recipe, options: dict) -> None:
    with pytest.raises(UserError, match="but is"):
        plan_recipe(quickstart, **options)


def test_planning_for_another_machine_needs_no_torch(recipes_directory: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from hornbook.planning.plan import plan_recipe; from hornbook.recipe import load_recipe\n"
        f"print(plan_recipe(load_recipe({str(recipes_directory / 'gpt2-124m.toml')!r}), 1e15).n_parameters)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert int(done.stdout) > 124_000_000


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (quantity(0), "0"),
        (quantity(855_000_000), "855 M"),
        (quantity(1.24e12), "1.24 T"),
        (size(37_800_000), "37.8 MB"),
        (size(225 * 10**9), "225.0 GB"),
        (duration(80), "80 s"),
        (duration(500), "8.3 min"),
        (duration(6 * 3600), "6.0 h"),
        (duration(20 * 86_400), "20.0 days"),
    ],
)
def test_figures_are_printed_in_the_unit_a_person_would_choose(printed: str, expected: str) -> None:
    assert printed == expected


def test_the_plan_shows_what_the_depth_alone_would_give(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text('name = "deep"\n[model]\ndepth = 12\n[pretrain]\nlr = 0.001\n', encoding="utf-8")
    plan = plan_recipe(load_recipe(path), flops_per_second=1e12)
    assert plan.depth_gives is not None
    assert (plan.settings["pretrain.lr"], plan.depth_gives["pretrain.lr"]) == (0.001, 0.0027)
    assert plan.settings["model.d_model"] == plan.depth_gives["model.d_model"] == 768
    (line,) = [line for line in _text(plan).splitlines() if "pretrain.lr" in line]
    assert "0.001" in line
    assert "0.0027" in line
    assert "depth alone" in _text(plan)


def test_a_plan_without_a_depth_shows_the_settings_alone(quickstart: Recipe) -> None:
    plan = plan_recipe(quickstart, flops_per_second=1e12)
    assert plan.depth_gives is None
    assert plan.settings["model.n_layers"] == quickstart.model.n_layers
    assert "depth alone" not in _text(plan)
