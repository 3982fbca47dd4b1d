"""References and ladders: many runs of one recipe, whose data is made once. The trainings are stood in for."""

import io
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hornbook import many_runs, reference, scale
from hornbook.errors import UserError
from hornbook.planning.curves import N_WINDOWS
from hornbook.planning.expected import Beginning, read_law
from hornbook.planning.ladder import Rung
from hornbook.planning.law import Law
from hornbook.planning.scaling import Point
from hornbook.recipe import Recipe, load_recipe
from hornbook.run_directory import RunDirectory, atomic_write, write_json
from hornbook.stages.training import BEGINNING_FILE

TRUE = Law(1.2, 60.0, 90.0, 0.35, 0.4)
WITH_A_HIGH_RATE = Law(1.5, 60.0, 90.0, 0.34, 0.39)


@dataclass
class Options:
    recipe: Path
    runs: Path
    seeds: int = 3
    sizes: int = 5
    flops: float | None = 1e14
    json: bool = False


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def _recipe(tmp_path: Path, recipes_directory: Path) -> tuple[Path, Recipe]:
    path = tmp_path / "stories.toml"
    path.write_text((recipes_directory / "tinystories.toml").read_text())
    return path, load_recipe(path)


def test_data_that_is_made_is_taken_and_not_made_again(
    tmp_path: Path, recipes_directory: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, recipe = _recipe(tmp_path, recipes_directory)
    data = RunDirectory(tmp_path / "data")
    atomic_write(data.stage("tokens").path / "train-0.bin", b"tokens")
    asked = []
    monkeypatch.setattr(many_runs, "run_pipeline", lambda recipe, runs, selection, console: asked.append(selection))
    many_runs.run_on(data, recipe, tmp_path / "runs", "pretrain", console)

    taken = tmp_path / "runs" / recipe.name / "tokens" / "train-0.bin"
    assert taken.read_bytes() == b"tokens"
    assert os.stat(taken).st_nlink == 2
    assert asked[0].until == "pretrain"


def test_a_reference_has_every_stage_and_seed(
    tmp_path: Path, recipes_directory: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, recipe = _recipe(tmp_path, recipes_directory)

    def run_on(data: Any, recipe: Recipe, runs: Path, until: str, console: Console) -> RunDirectory:
        run = RunDirectory(runs / recipe.name)
        folder = run.stage("pretrain").path
        beginning = Beginning("pretrain", 2000, 100, 1000, {"tokens": 2000})
        write_json(folder / BEGINNING_FILE, {"beginning": vars(beginning), "data": {"tokens": 50.0}})
        lines = [
            json.dumps({"step": step, "tokens": 20 * step, "loss_nats": 3.0 + recipe.seed / 100, "grad_norm": 1.0})
            for step in range(1, 101)
        ]
        atomic_write(folder / "metrics.jsonl", "\n".join(lines) + "\n")
        return run

    monkeypatch.setattr(reference, "run_on", run_on)
    monkeypatch.setattr(reference, "make_data", lambda recipe, runs, console: None)
    reference.record_reference(Options(path, tmp_path / "runs"), recipe, console)

    recorded = json.loads((tmp_path / "stories.expected.json").read_text())
    assert recorded["seeds"] == [1, 2, 3]
    bands = recorded["stages"]["pretrain"]["bands"]
    assert bands["loss_nats"]["mean"][0] == pytest.approx(3.02)
    assert recorded["stages"]["pretrain"]["data"] == {"tokens": 50.0}


def test_one_seed_makes_no_band(tmp_path: Path, recipes_directory: Path, console: Console) -> None:
    path, recipe = _recipe(tmp_path, recipes_directory)
    with pytest.raises(UserError, match="at least 2"):
        reference.record_reference(Options(path, tmp_path, seeds=1), recipe, console)


def test_a_training_too_short_for_a_curve_has_no_reference(
    tmp_path: Path, recipes_directory: Path, console: Console
) -> None:
    path, recipe = _recipe(tmp_path, recipes_directory)
    steps = N_WINDOWS - 1
    short = recipe.pretrain.model_copy(update={"tokens": steps * recipe.pretrain.global_batch_tokens})
    with pytest.raises(UserError, match=rf"pretrain\.tokens: a training of {steps} steps is too short"):
        reference.record_reference(Options(path, tmp_path), recipe.model_copy(update={"pretrain": short}), console)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("flops", [-1.0, 0.0, math.nan, math.inf, 1e40])
def test_operations_that_no_ladder_can_have_are_refused(
    tmp_path: Path, recipes_directory: Path, console: Console, flops: float
) -> None:
    path, recipe = _recipe(tmp_path, recipes_directory)
    with pytest.raises(UserError, match=r"^flops: "):
        scale.scale(Options(path, tmp_path, flops=flops), recipe, console)


def test_a_ladder_predicts_the_run_that_it_holds_out(
    tmp_path: Path, recipes_directory: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, recipe = _recipe(tmp_path, recipes_directory)
    made: list[Rung] = []

    def run(recipe: Recipe, one: Rung, runs: Path, data: Any, console: Console) -> tuple[Point, list[float]]:
        made.append(one)
        size = (one.parameters, one.tokens)
        end = TRUE.loss(*size)
        way = math.log(end / WITH_A_HIGH_RATE.loss(*size))
        # The rate rises in the first window, and falls from the middle of the training on.
        passed = [max(0.0, (number + 0.5) / N_WINDOWS - 0.5) * 2 for number in range(N_WINDOWS)]
        curve = [loss * math.exp(p * way) for loss, p in zip(WITH_A_HIGH_RATE.losses(*size), passed, strict=True)]
        return Point(*size, end), [1.2 * curve[0], *curve[1:]]

    monkeypatch.setattr(scale, "_run", run)
    monkeypatch.setattr(scale, "make_data", lambda recipe, runs, console: None)
    scale.scale(Options(path, tmp_path / "runs"), recipe, console)

    found = json.loads((tmp_path / "stories.law.json").read_text())
    assert len(found["points"]) == 10
    assert made[-1].flops == pytest.approx(4e14, rel=0.1)
    assert abs(found["held_out"]["off_by"]) < 0.02
    assert (tmp_path / "stories.law.svg").is_file()
    assert max(abs(share) for share in found["held_out"]["curve_off_by"]) < 0.03
    approach = found["law"]["approach"]
    assert approach["above"][0] == pytest.approx(math.log(1.2), abs=0.03)
    assert approach["passed"][1] == 0 < approach["passed"][15] < approach["passed"][-1]
    assert read_law(tmp_path) is None  # a run's folder has its own copy


def test_a_ladder_too_short_for_a_curve_is_refused_before_it_runs(
    tmp_path: Path, recipes_directory: Path, console: Console
) -> None:
    path, recipe = _recipe(tmp_path, recipes_directory)
    with pytest.raises(UserError, match="the shortest run of the ladder would have"):
        scale.scale(Options(path, tmp_path / "runs", flops=1e9), recipe, console)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("sizes", "said"), [(2, "at least 3")])
def test_a_ladder_of_two_is_refused(
    tmp_path: Path, recipes_directory: Path, console: Console, sizes: int, said: str
) -> None:
    path, recipe = _recipe(tmp_path, recipes_directory)
    with pytest.raises(UserError, match=said):
        scale.scale(Options(path, tmp_path, sizes=sizes), recipe, console)
