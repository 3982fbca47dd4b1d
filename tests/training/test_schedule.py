"""The learning rate at the corners of each schedule."""

from collections.abc import Callable

import pytest

from hornbook.recipe_training import PretrainSection
from hornbook.training.schedule import learning_rate_scale

MakeSection = Callable[..., PretrainSection]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_warm_up_rises_in_equal_parts_and_reaches_the_peak(schedule: str, make_section: MakeSection) -> None:
    section = make_section(schedule=schedule, warmup_fraction=0.1)

    assert [learning_rate_scale(step, 40, section) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_without_warm_up_the_first_step_is_at_the_peak(schedule: str, make_section: MakeSection) -> None:
    assert learning_rate_scale(0, 40, make_section(schedule=schedule, warmup_fraction=0.0)) == 1.0


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
@pytest.mark.parametrize("total_steps", [1, 2, 3, 50])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_every_step_learns_and_none_is_above_the_peak(
    schedule: str, total_steps: int, fraction: float, make_section: MakeSection
) -> None:
    section = make_section(schedule=schedule, warmup_fraction=fraction, decay_fraction=fraction)

    assert all(0 < learning_rate_scale(step, total_steps, section) <= 1 for step in range(total_steps))


def test_constant_stays_at_the_peak(make_section: MakeSection) -> None:
    section = make_section(schedule="constant", warmup_fraction=0.0, final_lr_fraction=0.5)

    assert {learning_rate_scale(step, 40, section) for step in range(40)} == {1.0}


def test_cosine_is_half_way_in_the_middle_and_ends_above_its_final_fraction(
    make_section: MakeSection,
) -> None:
    section = make_section(schedule="cosine", warmup_fraction=0.0, final_lr_fraction=0.2)

    assert learning_rate_scale(20, 40, section) == pytest.approx(0.6)
    assert 0.2 < learning_rate_scale(39, 40, section) < 0.202


def test_wsd_stays_at_the_peak_then_falls_in_equal_parts(make_section: MakeSection) -> None:
    section = make_section(schedule="wsd", warmup_fraction=0.0, decay_fraction=0.1)

    scales = [learning_rate_scale(step, 40, section) for step in range(40)]
    assert scales[:37] == [1.0] * 37
    assert scales[37:] == pytest.approx([0.75, 0.5, 0.25])


def test_a_decay_that_would_begin_within_the_warm_up_begins_after_it(make_section: MakeSection) -> None:
    section = make_section(schedule="wsd", warmup_fraction=0.5, decay_fraction=1.0)

    assert [learning_rate_scale(step, 4, section) for step in range(4)] == [0.5, 1.0, 1.0, 0.5]
