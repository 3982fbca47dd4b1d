"""The fit of a scaling law on runs whose law is known, and the ladder of a recipe."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from hornbook.planning.curves import N_WINDOWS
from hornbook.planning.ladder import HELD_OUT, ladder, rung
from hornbook.planning.law import Law
from hornbook.planning.law_picture import draw_law
from hornbook.planning.scaling import Point, best_of_valleys, bootstrap, fit_law, with_approach
from hornbook.recipe import load_recipe

TRUE = Law(1.7, 400.0, 410.0, 0.34, 0.28)  # about Chinchilla's
NOISE = 0.002


def _points(noise: float = 0.0, budgets: tuple[float, ...] = (1e18, 4e18, 1.6e19)) -> list[Point]:
    draw = random.Random(5)
    points = []
    for flops in budgets:
        best, _ = TRUE.best_split(flops)
        for apart in (0.25, 0.5, 1.0, 2.0, 4.0):
            parameters = best * apart
            tokens = flops / 6 / parameters
            loss = TRUE.loss(parameters, tokens) * math.exp(draw.gauss(0, noise))
            points.append(Point(parameters, tokens, loss))
    return points


def test_a_law_without_noise_is_found_again() -> None:
    law = fit_law(_points())

    assert law.e == pytest.approx(TRUE.e, rel=0.02)
    assert law.alpha == pytest.approx(TRUE.alpha, rel=0.03)
    assert law.beta == pytest.approx(TRUE.beta, rel=0.03)


def test_a_run_four_times_dearer_is_predicted_through_noise() -> None:
    law = fit_law(_points(NOISE))
    parameters, tokens = TRUE.best_split(6.4e19)

    assert law.loss(parameters, tokens) == pytest.approx(TRUE.loss(parameters, tokens), rel=0.01)
    assert law.best_split(6.4e19)[0] == pytest.approx(parameters, rel=0.6)


def test_the_best_split_is_where_the_law_is_lowest() -> None:
    parameters, tokens = TRUE.best_split(1e19)

    assert 6 * parameters * tokens == pytest.approx(1e19)
    lowest = TRUE.loss(parameters, tokens)
    for apart in (0.8, 1.25):
        assert TRUE.loss(parameters * apart, tokens / apart) > lowest


@pytest.mark.slow
def test_the_intervals_hold_the_truth_and_grow_with_the_noise() -> None:
    parameters, tokens = TRUE.best_split(1.6e19)
    widths = []
    for noise in (NOISE, 5 * NOISE):
        points = _points(noise)
        intervals = bootstrap(points, fit_law(points), 1.6e19, n=20)
        loss = intervals["best_loss"]
        assert loss.low * 0.98 < TRUE.loss(parameters, tokens) < loss.high * 1.02
        widths.append(loss.high - loss.low)
    assert widths[1] > widths[0]


def test_each_budget_has_its_valley() -> None:
    for flops, parameters, loss in best_of_valleys(_points()):
        best, tokens = TRUE.best_split(flops)
        assert parameters == pytest.approx(best, rel=0.3)
        assert loss == pytest.approx(TRUE.loss(best, tokens), rel=0.01)
    assert len(best_of_valleys(_points())) == 3


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 runs"):
        fit_law(_points()[:4])


def test_a_ladder_has_its_sizes_at_two_budgets(recipes_directory: Path) -> None:
    recipe = load_recipe(recipes_directory / "tinystories.toml")
    rungs = ladder(recipe, 5, 1e14)

    assert len(rungs) == 10
    assert len({one.parameters for one in rungs[5:]}) == 5
    for one in rungs[5:]:
        assert one.flops == pytest.approx(1e14, rel=0.1)
        assert one.tokens % recipe.pretrain.global_batch_tokens == 0
    held_out = rung(recipe, 1e6, HELD_OUT * 1e14)
    assert held_out.flops == pytest.approx(4e14, rel=0.05)
    assert held_out.parameters == pytest.approx(1e6, rel=0.3)


def test_the_picture_says_what_was_predicted(tmp_path: Path) -> None:
    draw_law(_points(), TRUE, Point(1e9, 1e10, 2.5), tmp_path / "law.svg", "little")

    drawn = (tmp_path / "law.svg").read_text()
    assert "The held-out run has a loss of 2.500" in drawn
    assert drawn.count("FLOPs") >= 4


def test_how_runs_come_down_to_the_law_holds_for_other_sizes_and_amounts() -> None:
    """Along a law of its own while the learning rate is high, then over to that of finished trainings."""
    law, under_way = Law(1.5, 50.0, 60.0, 0.4, 0.4), Law(2.4, 50.0, 60.0, 0.4, 0.35)
    high = range(2, 12)

    def run(parameters: float, tokens: float) -> tuple[Point, list[float | None]]:
        end = law.loss(parameters, tokens)
        way = math.log(end / under_way.loss(parameters, tokens))
        windows: list[float | None] = []
        for number, loss in enumerate(under_way.losses(parameters, tokens)):
            above = 0.3 / (1 + number) if number < min(high) else 0.0
            passed = (number - max(high)) / 8 if number > max(high) else 0.0
            windows.append(loss * math.exp(above + passed * way))
        return Point(parameters, tokens, end), windows

    runs = [run(n, d) for n in (1e5, 3e5, 1e6) for d in (1e6, 1e7)]
    runs[0][1][3] = None  # too short for a step in it
    found = with_approach(law, runs, high)

    assert found.curve(2e6, 4e7) == pytest.approx(run(2e6, 4e7)[1], rel=0.003)
    assert replace(found, approach=None) == law
    with pytest.raises(ValueError, match="too short"):
        with_approach(law, [(runs[0][0], [None] * N_WINDOWS)], high)
