"""What a plan advises for one device and for many, what it costs, and that it can be written into the recipe."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from hornbook.errors import UserError
from hornbook.planning.advice import advise
from hornbook.planning.budget import best_size, cost_of, flops_for, serving
from hornbook.planning.communication import sent_bytes_per_step
from hornbook.planning.hardware import ACCELERATORS, device_named
from hornbook.planning.layout import Layout, layout_of
from hornbook.planning.machine import Machine
from hornbook.planning.memory import training_memory
from hornbook.planning.picture import draw_memory
from hornbook.planning.plan import advised_fields, plan_recipe, planned_config
from hornbook.planning.write_back import write_fields
from hornbook.recipe import Recipe, load_recipe


@pytest.fixture
def gpt2(recipes_directory: Path) -> Recipe:
    return load_recipe(recipes_directory / "gpt2-124m.toml")


@pytest.fixture
def llama(recipes_directory: Path) -> Recipe:
    return load_recipe(recipes_directory / "llama-1b.toml")


def test_what_is_advised_fits(llama: Recipe) -> None:
    for name, n_devices in (("RTX 4090", 8), ("A100", 1), ("A100", 16), ("H100", 64)):
        device = device_named(name)
        advice = advise(planned_config(llama), llama.pretrain, device, n_devices, 0.4)
        assert advice is not None
        assert advice.layout.n_devices == n_devices
        assert advice.memory.total <= 0.9 * device.memory_bytes
        chosen = llama.pretrain.model_copy(update={"recompute": advice.recompute})
        twice = training_memory(planned_config(llama), chosen, 2 * advice.micro_batch_size, device.kind, advice.layout)
        rows_of_device = llama.pretrain.global_batch_tokens // llama.model.max_seq_len // advice.layout.data
        assert twice.total > 0.9 * device.memory_bytes or advice.micro_batch_size >= rows_of_device


def test_a_model_that_is_too_large_for_one_is_cut(llama: Recipe) -> None:
    config, section = planned_config(llama), llama.pretrain
    assert advise(config, section, device_named("T4"), 1, 0.4) is None
    many = advise(config, section, device_named("T4"), 16, 0.4)
    assert many is not None
    assert many.layout != Layout(replicate=16)


def test_a_layout_is_kept_where_it_takes_all_devices_and_left_aside_where_it_does_not(recipes_directory: Path) -> None:
    recipe = load_recipe(recipes_directory / "llama-8b.toml")
    config, section, device = planned_config(recipe), recipe.pretrain, device_named("h100")
    asked = layout_of(recipe, 64)
    all_of_it, too_few = (advise(config, section, device, n, 0.4, asked) for n in (64, 8))

    assert all_of_it.layout == asked == Layout(shard=8, tensor=4, pipeline=2, schedule="interleaved")
    assert too_few.layout.n_devices == 8
    assert "takes 64 devices; this is the plan for 8 devices." in too_few.reasons[-1]


def test_more_devices_take_less_time_and_never_less_than_their_share(gpt2: Recipe) -> None:
    config, section, device = planned_config(gpt2), gpt2.pretrain, device_named("h100")
    one, eight = (advise(config, section, device, n, 0.4) for n in (1, 8))

    assert one.seconds / 8 <= eight.seconds < one.seconds / 4


def test_eight_h100_and_a_budget(gpt2: Recipe) -> None:
    plan = plan_recipe(gpt2, machine=Machine(gpu="h100", gpus=8, price=2.5, budget=500.0))

    hours = plan.devices[0].total_seconds / 3600
    assert plan.cost.device_hours == pytest.approx(8 * hours)
    assert plan.cost.dollars == pytest.approx(8 * hours * 2.5)
    assert plan.cost.kilowatt_hours == pytest.approx(8 * hours * 0.7)
    assert plan.budget.flops == pytest.approx(500 / 2.5 * 3600 * 989.4e12 * 0.4, rel=1e-6)
    assert plan.budget.tokens == pytest.approx(20 * plan.budget.parameters)


def test_chinchilla_itself_is_the_best_size_for_its_operations() -> None:
    best = best_size(5.76e23)  # Hoffmann et al.: 70 billion parameters, 1.4 trillion tokens

    assert best.parameters == pytest.approx(70e9, rel=0.02)
    assert best.tokens == pytest.approx(1.4e12, rel=0.02)


def test_costs_that_are_not_known_are_left_open() -> None:
    cost = cost_of(device_named("t4"), 2, 3600.0, None)
    assert (cost.device_hours, cost.dollars, cost.kilowatt_hours) == (2.0, None, pytest.approx(0.14))
    assert flops_for(10, 2, device_named("t4"), 0.5) == pytest.approx(5 * 3600 * 32.5e12)


def test_many_answers_are_written_faster_than_one(gpt2: Recipe) -> None:
    one, many = serving(planned_config(gpt2), device_named("a100"), 0.4)

    assert one.tokens_per_second < many.tokens_per_second <= 16 * one.tokens_per_second
    assert one.weights_bytes == many.weights_bytes


def test_what_is_sent_grows_as_the_rings_say(gpt2: Recipe) -> None:
    config, section = planned_config(gpt2), gpt2.pretrain.model_copy(update={"precision": "float32"})
    n_bytes = 4 * sum(plan_recipe(gpt2, flops_per_second=1e15).parameters.values())
    two, eight = (sent_bytes_per_step(config, section, Layout(replicate=n), 8, 4)["replicate"] for n in (2, 8))

    assert two == pytest.approx(n_bytes)  # 2 (2 - 1) / 2 of the gradients
    assert eight == pytest.approx(n_bytes * 7 / 4)
    assert sent_bytes_per_step(config, section, Layout(), 8, 4) == {}


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (Machine(gpu="h1000"), "is not in the table of hardware"),
        (Machine(gpu="h100", gpus=0), "gpus: must be greater than 0"),
        (Machine(gpu="h100", budget=5.0), "needs the price"),
        (Machine(gpus=4), "needs the kind of device"),
        (Machine(gpu="h100", flops_per_second=1e12), "leave out"),
        (Machine(gpu="h100", utilisation=1.5), "at most 1"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_in_a_sentence(gpt2: Recipe, machine: Machine, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan_recipe(gpt2, machine=machine)


def test_every_accelerator_has_a_source_and_possible_figures() -> None:
    for device in ACCELERATORS:
        assert device.source
        assert 1e13 < device.flops_per_second < 1e16
        assert 1e11 < device.bytes_per_second < 1e13
        assert device_named(device.name.lower().replace(" ", "-")) == device


def test_advice_goes_into_the_recipe_and_its_comments_stay(tmp_path: Path, recipes_directory: Path) -> None:
    path = tmp_path / "llama.toml"
    path.write_text((recipes_directory / "llama-1b.toml").read_text())
    before = path.read_text().splitlines()
    write_fields(path, {"pretrain.recompute": "selective", "pretrain.micro_batch_size": 4})

    recipe, after = load_recipe(path), path.read_text().splitlines()
    assert recipe.pretrain.recompute == "selective"
    assert recipe.pretrain.micro_batch_size == 4
    assert len(set(before) - set(after)) == 1  # the one line that was changed
    assert [line for line in after if line.startswith("#")] == [line for line in before if line.startswith("#")]
    assert "# memory for time: rows of 4,096 tokens are long" in path.read_text()


def test_a_section_that_is_not_there_is_added(tmp_path: Path) -> None:
    path = tmp_path / "little.toml"
    path.write_text('name = "little"\n[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\n')
    write_fields(path, {"evaluate.questions_per_suite": 7})

    assert load_recipe(path).evaluate.questions_per_suite == 7


def test_nothing_is_written_that_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "little.toml"
    path.write_text('name = "little"\n[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\n')
    before = path.read_bytes()
    with pytest.raises(UserError):
        write_fields(path, {"pretrain.micro_batch_size": -1})

    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["little.toml"]


def test_the_picture_says_what_it_shows(gpt2: Recipe, tmp_path: Path) -> None:
    draw_memory(plan_recipe(gpt2, machine=Machine(gpu="a100")), tmp_path / "memory.svg")

    drawn = (tmp_path / "memory.svg").read_text()
    assert "pretrain has its peak at" in drawn
    assert "A100 has 80 GB" in drawn


def test_without_the_devices_memory_nothing_is_advised(gpt2: Recipe) -> None:
    made = plan_recipe(gpt2, machine=Machine(flops_per_second=4e14))
    assert set(made.advice.values()) == {None}
    assert advised_fields(made) == {}
    printed = io.StringIO()
    made.render(Console(file=printed, width=120))
    assert "name it with --gpu" in printed.getvalue()
