"""Figures for other programs: what they are handed, and what is said where they are not there."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.training import tracking
from hornbook.training.tracking import Trackers, figures_of
from hornbook.training.trainer import Trainer

RECORD = {
    "step": 3,
    "loss_nats": 2.5,
    "grad_norm": None,
    "evaluation": {"validation": {"bits_per_byte": 1.25}},
}


def test_figures_are_the_numbers_of_a_record() -> None:
    assert figures_of(RECORD) == {"loss_nats": 2.5, "evaluation/validation/bits_per_byte": 1.25}


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "'hornbook[tracking]'"), ("trackio", "trackio"), ("wandb", "wandb")]
)
def test_a_package_that_is_not_there_is_named_before_the_first_step(
    name: str, package: str, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot_import(_: str) -> None:
        raise ImportError

    monkeypatch.setattr(tracking.importlib, "import_module", cannot_import)
    trainer = make_trainer(tracking=(name,))
    with pytest.raises(UserError) as error:
        trainer.train()

    assert str(error.value) == (
        f"tracking: {name} is not installed. Install it (pip install {package}), or take it out of the recipe."
    )
    assert trainer.step == 0


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_run_that_goes_on_is_the_same_run_online(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    module = SimpleNamespace(
        init=lambda **options: calls.append(("init", options)),
        log=lambda figures, step: calls.append(("log", (figures, step))),
        finish=lambda: calls.append(("finish", None)),
    )
    monkeypatch.setattr(tracking.importlib, "import_module", lambda _: module)
    for _ in range(2):
        with Trackers([name], tmp_path / "little" / "pretrain", step=2) as trackers:
            trackers.log(RECORD)

    assert [call for call, _ in calls] == ["init", "log", "finish"] * 2
    assert calls[0] == calls[3]
    assert calls[0][1]["name"] == "little-pretrain"
    assert calls[0][1]["resume"] == "allow"
    assert calls[1][1] == (figures_of(RECORD), 3)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_reads_what_was_written_and_made_again(make_trainer: Callable[..., Trainer]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    make_trainer(tracking=("tensorboard",), total_steps=4).train()
    trainer = make_trainer(tracking=("tensorboard",), total_steps=6)
    trainer.train()

    events = EventAccumulator(str(trainer.directory / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss_nats")] == [1, 2, 3, 4, 5, 6]
