"""Ten sound seeds are within their reference's band; ten planted faults are found, and by the half of the run."""

from pathlib import Path
from typing import Any

import pytest

from hornbook.planning.verdict import judge
from hornbook.training.metrics import read_metrics

from .faults import STEPS, Setup, faults, record, run, sound_setup

FAULTS = (
    "learning rate x 10",
    "learning rate / 10",
    "shuffled labels",
    "mask dropped",
    "wrong pad",
    "repeated data",
    "no warm-up",
    "fp16 overflow",
    "half the data missing",
    "stale tokenizer",
)
CAN_BE_MISSED = 1


@pytest.fixture(scope="module")
def sound() -> Setup:
    return sound_setup()


@pytest.fixture(scope="module")
def reference(sound: Setup, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return record(sound, range(1, 4), tmp_path_factory.mktemp("references"))


@pytest.mark.slow
def test_ten_planted_faults_are_found_with_their_cause(sound: Setup, reference: dict[str, Any], tmp_path: Path) -> None:
    missed = []
    for name, (setup, cause) in faults(sound).items():
        folder, trained = run(setup, 101, tmp_path / name.replace("/", "by"), reference)
        half = read_metrics(folder.stage("pretrain").path / "metrics.jsonl")[: STEPS // 2 + 8]
        data = trained.data
        verdict = judge(half, trained.expected, data)
        named = [found.name for found in verdict.causes[:2]]
        print(name, verdict.is_within, [(one.figure, round(one.off_by, 2)) for one in verdict.outside], named)
        if verdict.is_within or not any(found.startswith(cause) for found in named):
            missed.append(name)

    assert len(missed) <= CAN_BE_MISSED, missed


@pytest.mark.slow
def test_no_sound_seed_is_outside(sound: Setup, reference: dict[str, Any], tmp_path: Path) -> None:
    verdicts = [run(sound, seed, tmp_path / f"{seed}", reference)[1].verdict for seed in range(11, 21)]

    assert [verdict.sentence for verdict in verdicts if not verdict.is_within] == []
