"""What a plan advises for one device and for many, what it costs, and that it can be written into the recipe."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from hornbook.cli import main
from hornbook.errors import UserError
from hornbook.planning.advice import Advice, advise
from hornbook.planning.budget import best_size, cost_of, flops_for, serving
from hornbook.planning.communication import sent_bytes_per_step
from hornbook.planning.hardware import ACCELERATORS, Device, device_named
from hornbook.planning.layout import Layout, layout_of
from hornbook.planning.machine import Machine
from hornbook.planning.memory import training_memory
from hornbook.planning.picture import draw_memory
from hornbook.planning.plan import Plan, advised_fields, plan_recipe, planned_config
from hornbook.planning.write_back import write_fields
from hornbook.recipe import Recipe, load_recipe
from hornbook.recipe_training import FinetuneSection


@pytest.fixture
def gpt2(recipes_directory: Path) -> Recipe:
    return load_recipe(recipes_directory / "gpt2-124m.toml")


@pytest.fixture
def llama(recipes_directory: Path) -> Recipe:
    return load_recipe(recipes_directory / "llama-1b.toml")


def _advise(recipe: Recipe, device: Device, n_devices: int, only: Layout | None = None) -> Advice | None:
    """The advice for pretraining alone."""
    found = advise(planned_config(recipe), {"pretrain": recipe.pretrain}, device, n_devices, 0.4, only)
    return None if found is None else found["pretrain"]


def _printed(plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=200)
    plan.render(console)
    return console.file.getvalue()


def test_what_is_advised_fits(llama: Recipe) -> None:
    for name, n_devices in (("RTX 4090", 8), ("A100", 1), ("A100", 16), ("H100", 64)):
        device = device_named(name)
        advice = _advise(llama, device, n_devices)
        assert advice is not None
        assert advice.layout.n_devices == n_devices
        assert advice.memory.total <= 0.9 * device.memory_bytes
        chosen = llama.pretrain.model_copy(update={"recompute": advice.recompute})
        twice = training_memory(planned_config(llama), chosen, 2 * advice.micro_batch_size, device.kind, advice.layout)
        rows_of_device = llama.pretrain.global_batch_tokens // llama.model.max_seq_len // advice.layout.data
        assert twice.total > 0.9 * device.memory_bytes or advice.micro_batch_size >= rows_of_device


def test_a_model_that_is_too_large_for_one_is_cut(llama: Recipe) -> None:
    assert _advise(llama, device_named("T4"), 1) is None
    many = _advise(llama, device_named("T4"), 16)
    assert many is not None
    assert many.layout != Layout(replicate=16)


def test_a_layout_is_kept_where_it_takes_all_devices_and_left_aside_where_it_does_not(recipes_directory: Path) -> None:
    recipe = load_recipe(recipes_directory / "llama-8b.toml")
    asked = layout_of(recipe, 64)
    all_of_it, too_few = (_advise(recipe, device_named("h100"), n, asked) for n in (64, 8))

    assert all_of_it.layout == asked == Layout(shard=8, tensor=4, pipeline=2, schedule="interleaved")
    assert too_few.layout.n_devices == 8
    assert "takes 64 devices; this is the plan for 8 devices." in too_few.reasons[-1]


def test_more_devices_take_less_time_and_never_less_than_their_share(gpt2: Recipe) -> None:
    one, eight = (_advise(gpt2, device_named("h100"), n) for n in (1, 8))

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
    assert advised_fields(made, gpt2) == {}
    assert "name it with --gpu" in _printed(made)


def test_only_what_a_run_spreads_is_planned_for_many_devices(recipes_directory: Path) -> None:
    recipe = load_recipe(recipes_directory / "quickstart.toml")
    one, four = (plan_recipe(recipe, machine=Machine(gpu="h100", gpus=n, price=2.0)) for n in (1, 4))

    assert {name: advice.layout.n_devices for name, advice in four.advice.items()} == {
        "pretrain": 4,
        "finetune": 4,
        "preference": 1,
        "reinforce": 1,
    }
    assert four.devices[0].seconds["preference"] == one.devices[0].seconds["preference"]
    assert four.devices[0].seconds["pretrain"] < one.devices[0].seconds["pretrain"]
    # All four are paid for while one of them works.
    assert four.cost.dollars == pytest.approx(4 * 2.0 * four.devices[0].total_seconds / 3600)
    assert "on one of them" in _printed(four)

    without_memory = [plan_recipe(recipe, machine=Machine(flops_per_second=1e15, gpus=n)) for n in (1, 4)]
    alone, spread = (made.devices[0].seconds for made in without_memory)
    assert spread == {name: alone[name] / (4 if name in ("pretrain", "finetune") else 1) for name in alone}


def test_what_is_spread_has_one_cut_that_all_of_it_can_have(recipes_directory: Path) -> None:
    recipe = load_recipe(recipes_directory / "llama-1b.toml", {"tokenizer.vocab_size": 32768})
    longer = FinetuneSection(tokens=2**20, global_batch_tokens=2**15, row_tokens=2**13)  # four rows a step
    config, section = planned_config(recipe), recipe.pretrain
    alone = advise(config, {"pretrain": section}, device_named("h100"), 16, 0.4)
    together = advise(config, {"pretrain": section, "finetune": longer}, device_named("h100"), 16, 0.4)

    assert alone["pretrain"].layout.data == 16
    assert together["pretrain"].layout == together["finetune"].layout
    assert together["pretrain"].layout.data <= 4
    assert "as pretrain, for all that is spread is cut alike" in together["finetune"].reasons[-1]


def test_a_cut_is_advised_for_the_file_only_where_it_has_a_section_for_it(gpt2: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "cut.toml"
    path.write_text('name = "cut"\n[pretrain]\ntokens = 65_536\nglobal_batch_tokens = 16_384\n[parallel]\nshard = -1\n')
    fields = [
        advised_fields(plan_recipe(recipe, machine=Machine(gpu="h100", gpus=8)), recipe)
        for recipe in (gpt2, load_recipe(path))
    ]

    assert [name for name in fields[0] if name.startswith("parallel")] == []
    assert fields[1]["parallel.replicate"] * fields[1]["parallel.shard"] == 8


def test_one_device_takes_the_time_of_what_is_advised(recipes_directory: Path) -> None:
    path = recipes_directory / "llama-1b.toml"
    careful, plain = (
        plan_recipe(load_recipe(path, {"pretrain.recompute": again}), machine=Machine(gpu="b200"))
        for again in ("full", "none")
    )
    device = careful.devices[0]

    assert device.seconds == plain.devices[0].seconds == {"pretrain": careful.advice["pretrain"].seconds}
    assert device.rows_at_once == {"pretrain": careful.advice["pretrain"].micro_batch_size}
    assert "recompute none" in _printed(careful).split("Cost")[0]
    two = plan_recipe(load_recipe(path), machine=Machine(gpu="b200", gpus=2)).devices[0]
    assert device.total_seconds / 2 <= two.total_seconds <= device.total_seconds / 1.8


def test_a_number_of_devices_that_does_not_come_out_even_is_told_apart_from_memory(gpt2: Recipe, llama: Recipe) -> None:
    three = plan_recipe(gpt2, machine=Machine(gpu="h100", gpus=3, price=2.0))
    small = plan_recipe(llama, machine=Machine(gpu="t4", price=2.0))

    assert "cannot be shared by 3 devices" in three.not_advised["pretrain"]
    assert three.not_advised["pretrain"].endswith("take 2 or 4.")
    assert small.not_advised["pretrain"].startswith("nothing fits into the memory.")
    for made in (three, small):
        assert made.cost is None
        assert made.devices[0].total_seconds is None
        printed = _printed(made)
        assert made.not_advised["pretrain"] in printed
        assert "$" not in printed
        assert "--write" not in printed
    many = plan_recipe(gpt2, machine=Machine(gpu="h100", gpus=10**9)).not_advised["pretrain"]
    assert many.startswith("cannot be shared by 1000000000 devices")


def test_a_layout_that_does_not_divide_the_rows_is_not_advised(recipes_directory: Path) -> None:
    recipe = load_recipe(recipes_directory / "gpt2-124m.toml", {"parallel.replicate": 2})
    why = plan_recipe(recipe, machine=Machine(gpu="h100", gpus=6)).not_advised["pretrain"]

    assert "as the recipe's section parallel asks" in why


def test_more_operations_than_a_number_holds_are_refused(gpt2: Recipe) -> None:
    with pytest.raises(UserError, match="more operations than a number can hold"):
        plan_recipe(gpt2, machine=Machine(gpu="h100", price=1e-300, budget=1e300))


def test_a_card_of_sixteen_lanes_of_pcie_4_sends_32_gb_a_second() -> None:
    assert device_named("rtx3090").link_bytes_per_second == device_named("rtx4090").link_bytes_per_second == 32e9


@pytest.mark.parametrize(
    "text",
    [
        'name = "little"\npretrain.tokens = 4096\npretrain.global_batch_tokens = 1024\n',
        'name = "little"\npretrain = { tokens = 4096, global_batch_tokens = 1024 }\n',
    ],
    ids=["dotted keys", "inline table"],
)
def test_a_section_without_a_header_is_to_be_set_by_hand(tmp_path: Path, text: str) -> None:
    path = tmp_path / "little.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"could not write pretrain\.micro_batch_size = 8 into it; set it by hand"):
        write_fields(path, {"pretrain.micro_batch_size": 8})

    assert path.read_text() == text


def test_the_ends_of_lines_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "little.toml"
    text = 'name = "little"\r\n[pretrain]\r\ntokens = 4096\r\n# a line\u2028in two\r\nglobal_batch_tokens = 1024\r\n'
    path.write_bytes(text.encode())
    write_fields(path, {"pretrain.micro_batch_size": 2, "evaluate.questions_per_suite": 7})

    added = "micro_batch_size = 2\r\n\r\n[evaluate]\r\nquestions_per_suite = 7\r\n"
    assert path.read_bytes().decode() == text + added


def test_json_is_all_that_stands_on_standard_output(
    tmp_path: Path, recipes_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gpt2.toml"
    path.write_text((recipes_directory / "gpt2-124m.toml").read_text())
    picture = str(tmp_path / "memory.svg")
    options = ["--json", "--write", "--published", "--picture", picture]
    assert main(["plan", str(path), "--gpu", "h100", *options]) == 0

    printed = capsys.readouterr()
    assert json.loads(printed.out)["advice"]["pretrain"]["recompute"] == "none"
    assert picture in "".join(printed.err.split("\n"))
    assert "written into" in printed.err
