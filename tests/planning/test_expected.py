"""Curves to expect, bands around several seeds, and what a verdict says of curves made by hand."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.planning.curves import N_WINDOWS, TOLERANCES, Tolerance, band_of, finished_windows, windows
from hornbook.planning.expected import (
    Beginning,
    beside,
    bring_along,
    compared_settings,
    expectation,
    read_law,
    read_reference,
    record_of,
    write_reference,
)
from hornbook.planning.law import Approach, Law
from hornbook.planning.plan import plan_recipe, planned_config
from hornbook.planning.score import score
from hornbook.planning.verdict import Watch, judge
from hornbook.recipe import load_recipe
from hornbook.run_directory import write_json

TOTAL_TOKENS, STEPS, VOCAB_SIZE = 40_000, 200, 500
SETTINGS = {"tokens": TOTAL_TOKENS}


def _beginning(stage: str = "pretrain", **fields: Any) -> Beginning:
    return Beginning(stage, TOTAL_TOKENS, VOCAB_SIZE, 100_000, SETTINGS, **fields)


def _records(seed: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """A training that falls from ln V towards 2, a little different with each seed."""
    records = []
    for step in range(1, STEPS + 1):
        loss = 2 + (math.log(VOCAB_SIZE) - 2) * math.exp(-step / 30) + 0.01 * math.sin(step * (seed + 1))
        record = {"step": step, "tokens": step * TOTAL_TOKENS // STEPS, "loss_nats": loss, "grad_norm": 1.0,
                  "lr": 0.01, "labelled_fraction": 0.6, "next_label_fraction": 1.0, "top_label_fraction": 0.1,
                  "repeated_fraction": 0.0}  # fmt: skip
        records.append(record | {name: change(step, record) for name, change in changes.items()})
    return records


def _reference() -> dict[str, Any]:
    runs = {seed: _records(seed) for seed in (1, 2, 3)}
    return {"seeds": [1, 2, 3], "stages": {"pretrain": record_of(runs, _beginning(), {"tokens": 1000.0})}}


def test_a_window_has_the_mean_of_its_steps() -> None:
    records = _records()
    measured = windows(records, "loss_nats", TOTAL_TOKENS)

    assert len(measured) == N_WINDOWS
    first = [record["loss_nats"] for record in records[: STEPS // N_WINDOWS]]
    assert measured[0] == pytest.approx(sum(first) / len(first))
    assert windows(records[:15], "loss_nats", TOTAL_TOKENS)[2:] == [None] * (N_WINDOWS - 2)
    assert finished_windows(records[:15], TOTAL_TOKENS) == 1


def test_a_band_is_as_wide_as_seeds_differ_and_never_narrower_than_its_tolerance() -> None:
    alike = band_of([[1.0] * N_WINDOWS] * 3, Tolerance(relative=0.02))
    apart = band_of([[value] * N_WINDOWS for value in (0.9, 1.0, 1.1)], Tolerance(relative=0.02))

    assert alike.low[0] == pytest.approx(0.98)
    assert apart.high[0] - 1.0 == pytest.approx(5 * math.sqrt(0.01 * (1 + 1 / 3)))
    assert band_of([[None, *[1.0] * (N_WINDOWS - 1)]], Tolerance()) is None


def test_another_seed_is_within_the_reference() -> None:
    expected = expectation(_beginning(), _reference(), None)
    verdict = judge(_records(9), expected, {"tokens": 1000.0})

    assert "3 seeds" in expected.source
    assert verdict.is_within
    assert verdict.causes == ()
    assert verdict.sentence.startswith("As expected: ")


def test_a_loss_that_leaves_its_band_is_told_with_its_step() -> None:
    late = _records(9, loss_nats=lambda step, record: record["loss_nats"] + (0.5 if step > 100 else 0))
    verdict = judge(late, expectation(_beginning(), _reference(), None), {"tokens": 1000.0})

    assert not verdict.is_within
    assert 100 <= verdict.outside[0].since_step <= 111
    assert verdict.outside[0].off_by > 0.2
    assert verdict.as_json()["outside"][0]["figure"] == "loss_nats"


@pytest.mark.parametrize(
    ("figure", "value", "cause"),
    [
        ("lr", 0.1, "learning rate too high"),
        ("lr", 0.001, "learning rate too low"),
        ("next_label_fraction", 0.1, "shuffled labels"),
        ("labelled_fraction", 0.9, "mask"),
        ("repeated_fraction", 0.8, "repeated data"),
    ],
)
def test_a_sign_points_to_its_cause(figure: str, value: float, cause: str) -> None:
    records = _records(9, **{figure: lambda step, record: value})
    verdict = judge(records, expectation(_beginning(), _reference(), None), {"tokens": 1000.0})

    assert verdict.causes[0].name == cause
    assert verdict.causes[0].check


def test_steps_without_a_finite_value_point_to_the_precision() -> None:
    records = _records(9)
    for record in records[5::20]:
        record |= {"loss_nats": None, "grad_norm": None}

    assert judge(records, expectation(_beginning(), _reference(), None)).causes[0].name == "precision"


def test_missing_data_is_told_whatever_the_loss_does() -> None:
    verdict = judge(_records(9), expectation(_beginning(), _reference(), None), {"tokens": 500.0})

    assert not verdict.is_within
    assert verdict.causes[0].name == "data missing"


def test_a_watch_warns_once_and_while_it_runs() -> None:
    watch = Watch(expectation(_beginning(), _reference(), None), {"tokens": 1000.0})
    said = [
        (record["step"], line)
        for record in _records(9, next_label_fraction=lambda step, record: 0.1)
        for line in watch(record)
    ]

    assert said[0][0] == STEPS // N_WINDOWS
    assert "shuffled labels" in said[1][1]
    assert len([line for _, line in said if line.startswith("Not as expected")]) == 1


def test_without_a_reference_pretraining_begins_near_ln_v_and_falls() -> None:
    expected = expectation(_beginning(), None, None)

    assert expected.first == pytest.approx(math.log(VOCAB_SIZE))
    assert list(expected.curve.mean) == sorted(expected.curve.mean, reverse=True)
    assert expected.curve.low[-1] < 2 < expected.curve.high[-1]


def test_a_fitted_law_is_taken_before_the_general_one() -> None:
    law = Law(1.5, 50.0, 60.0, 0.4, 0.4)
    expected = expectation(_beginning(), None, law)

    assert "law" in expected.source
    twice_at_first = Approach(law, [math.log(2)] * 10 + [0.0] * 10, [0.0] * 20)
    with_curve = expectation(_beginning(), None, replace(law, approach=twice_at_first))
    assert with_curve.curve.mean[12] == pytest.approx(law.losses(100_000, TOTAL_TOKENS)[12])
    assert with_curve.curve.mean[8] == pytest.approx(min(with_curve.first, 2 * law.losses(100_000, TOTAL_TOKENS)[8]))
    assert expected.curve.mean[-1] == pytest.approx(law.loss(100_000, TOTAL_TOKENS), rel=0.05)


def test_a_plan_shows_the_reference_that_stands_beside_its_recipe(tmp_path: Path) -> None:
    path = tmp_path / "little.toml"
    path.write_text('name = "little"\n[pretrain]\ntokens = 40_960\nglobal_batch_tokens = 1024\n')
    recipe = load_recipe(path)
    plain = plan_recipe(recipe, flops_per_second=1e12)
    assert plain.expected["pretrain"].first == pytest.approx(math.log(plain.vocab_size))

    beginning = replace(_beginning(), settings=compared_settings(planned_config(recipe), recipe.pretrain))
    runs = {seed: _records(seed) for seed in (1, 2)}
    stages = {"pretrain": record_of(runs, beginning, {})}
    write_reference(tmp_path / "little.expected.json", {"seeds": [1, 2], "stages": stages})
    reference, law = beside(path)
    planned = plan_recipe(recipe, flops_per_second=1e12, reference=reference, law=law)

    assert "2 seeds" in planned.expected["pretrain"].source
    assert law is None


def test_each_stage_has_its_own_beginning() -> None:
    preference = expectation(_beginning("preference"), None, None)
    assert preference.first == pytest.approx(math.log(2))
    assert preference.curve.low[0] <= math.log(2) <= preference.curve.high[0]

    finetune = expectation(_beginning("finetune", first_loss=3.0), None, None)
    assert finetune.curve.low[-1] < 1.5 < 3.0 < finetune.curve.high[-1] < 3.6

    reinforce = expectation(_beginning("reinforce", first_loss=0.4), None, None)
    assert reinforce.figure == "reward"
    assert reinforce.curve.low[0] < 0.4 < reinforce.curve.high[-1] <= 1


def test_how_long_the_models_own_answers_are_is_no_sign_of_the_data() -> None:
    def reward(step: int, record: dict[str, Any]) -> float:
        return step / STEPS

    runs = {seed: _records(seed, reward=reward) for seed in (1, 2, 3)}
    beginning = _beginning("reinforce", first_loss=0.4)
    reference = {"seeds": [1, 2, 3], "stages": {"reinforce": record_of(runs, beginning, {})}}
    expected = expectation(beginning, reference, None)

    assert "3 seeds" in expected.source
    assert not {"labelled_fraction", "top_label_fraction"} & set(expected.signs)
    assert "next_label_fraction" in expected.signs
    assert "labelled_fraction" in expectation(_beginning(), _reference(), None).signs


def test_a_reference_of_another_training_is_not_taken() -> None:
    other = Beginning("pretrain", TOTAL_TOKENS, VOCAB_SIZE, 100_000, {"tokens": 7})

    assert "reference of" not in expectation(other, _reference(), None).source


def test_a_reference_without_the_curve_counts_as_none() -> None:
    """Runs of a few steps leave most windows empty, and a band needs them all."""
    too_short = {seed: _records(seed)[:5] for seed in (1, 2)}
    reference = {"seeds": [1, 2], "stages": {"pretrain": record_of(too_short, _beginning(), {})}}

    assert reference["stages"]["pretrain"]["bands"] == {}
    assert expectation(_beginning(), reference, None) == expectation(_beginning(), None, None)


@pytest.mark.parametrize("content", [{}, [], {"stages": {}}, {"seeds": [1], "stages": {"pretrain": {}}}])
def test_what_is_no_reference_and_no_law_is_told_in_a_sentence(tmp_path: Path, content: Any) -> None:
    for name, what in (("expected", "no reference"), ("law", "no law")):
        path = tmp_path / f"little.{name}.json"
        write_json(path, content)
        with pytest.raises(UserError, match=rf"little\.{name}\.json: is {what} that"):
            beside(tmp_path / "little.toml")
        path.unlink()


def test_a_reference_and_a_law_beside_the_recipe_come_along(tmp_path: Path) -> None:
    recipe, run = tmp_path / "little.toml", tmp_path / "run"
    run.mkdir()
    assert read_reference(run) is None
    assert read_law(run) is None
    write_reference(tmp_path / "little.expected.json", _reference())
    approach = Approach(Law(1.5, 2.0, 3.0, 0.4, 0.5), [0.1] + [0.0] * 19, [0.0] * 10 + [0.5] * 10)
    law = Law(1.0, 2.0, 3.0, 0.4, 0.5, approach)
    write_json(tmp_path / "little.law.json", {"law": asdict(law)})
    bring_along(recipe, run)

    assert read_reference(run) == _reference()
    assert read_law(run) == law

    for before in ({}, {"above": [1.0] * 20}):  # as earlier versions wrote it
        without_curve = {name: value for name, value in asdict(law).items() if name != "approach"}
        write_json(run / "law.json", {"law": without_curve | before})
        assert read_law(run) == replace(law, approach=None)


def test_a_score_says_by_how_much_each_prediction_was_off() -> None:
    rows = score({"parameters": 100, "seconds": 5.0}, {"parameters": 100, "seconds": 10.0, "loss_nats": 2.0})

    assert rows["parameters"]["off_by"] == 0
    assert rows["seconds"]["off_by"] == pytest.approx(-0.5)
    assert rows["loss_nats"] == {"predicted": None, "measured": 2.0, "off_by": None}


def test_every_watched_figure_has_its_tolerance() -> None:
    assert {"loss_nats", "reward", "lr", "labelled_fraction"} <= set(TOLERANCES)


def test_a_final_loss_is_predicted_from_a_reference_or_a_law_and_from_nothing_else() -> None:
    law = Law(1.7, 40.0, 60.0, 0.4, 0.4)
    expected = expectation(_beginning(), None, law)

    assert expected.final_loss_nats == pytest.approx(law.loss(100_000, TOTAL_TOKENS), rel=0.05)
    assert expectation(_beginning(), _reference(), None).final_loss_nats == pytest.approx(2.0, abs=0.05)
    for stage in ("pretrain", "finetune", "preference", "reinforce"):
        assert expectation(_beginning(stage, first_loss=3.0), None, None).final_loss_nats is None


def test_a_classifier_may_become_as_sure_as_it_likes_but_should_not_do_worse_than_guessing() -> None:
    beginning = _beginning("classify", first_loss=math.log(2))
    sure, no_better = (
        judge(_records(loss_nats=lambda step, record, loss=loss: loss), expectation(beginning, None, None))
        for loss in (1e-4, 0.9)
    )

    assert sure.is_within
    assert not no_better.is_within


def test_the_smallest_models_are_expected_to_learn_too() -> None:
    beginning = replace(_beginning(), n_parameters=100_000, total_tokens=1_000_000)
    expected = expectation(beginning, None, None)
    assert expected.first == pytest.approx(math.log(beginning.vocab_size))
    assert expected.curve.mean[-1] < 0.6 * expected.first
    assert expected.is_rough
