"""What `hornbook show` prints about a run, from its folder alone."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hornbook.errors import UserError
from hornbook.run_directory import RunDirectory, atomic_write
from hornbook.show import show_run

SUITE = {
    "choice": 0.41,
    "choice_stderr": 0.035,
    "choice_normalised": 0.4,
    "choice_normalised_stderr": 0.035,
    "free": 0.1,
    "free_stderr": 0.02,
    "chance": 0.25,
    "n": 200,
    "n_cut": 0,
}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose pretraining and evaluation are done, and whose export is not."""
    run = RunDirectory(tmp_path / "run")
    atomic_write(run.recipe_path, 'name = "run"\n')
    pretraining = {
        "tokens_per_second": 16372.25,
        "parameters": 1_234_567,
        "floor_bits_per_byte": None,
        "lr": 0.00002,
        "is_compiled": True,
        "device": "cpu",
    }
    evaluation = {"scores": {"pretrain": {"facts": SUITE}, "finetune": {"facts": SUITE}}, "samples": ["A [lamp]."]}
    _finish(run, "pretrain", pretraining)
    _finish(run, "evaluation", evaluation)
    return run


def _finish(run: RunDirectory, stage: str, facts: dict[str, Any]) -> None:
    run.stage(stage).begin("fingerprint")
    run.stage(stage).finish("fingerprint", seconds=12.34, facts=facts)


def shown(run: RunDirectory) -> str:
    console = Console(file=io.StringIO(), width=80)
    show_run(run.path, ["pretrain", "evaluation", "export"], console)
    return console.file.getvalue()


def test_a_verdict_its_causes_and_the_score_of_the_plan_are_shown(run: RunDirectory) -> None:
    cause = {"name": "precision", "because": "in 3% of the steps nothing was finite.", "check": "Set float32."}
    verdict = {"is_within": False, "sentence": "Not as expected since step 9 [loss].", "causes": [cause]}
    rows = {"parameters": {"predicted": 1000, "measured": 1000, "off_by": 0.0},
            "loss_nats": {"predicted": 3.0, "measured": 2.5, "off_by": 0.2}}  # fmt: skip
    _finish(run, "pretrain", {"tokens": 5, "verdict": verdict, "plan_score": rows})

    words = " ".join(shown(run).replace("│", " ").split())
    assert "pretrain Not as expected since step 9 [loss]." in words
    assert "perhaps precision: in 3% of the steps nothing was finite. Set float32." in words
    assert "parameters 1,000 1,000 +0.0%" in words
    assert "loss nats 3.000 2.500 +20.0%" in words


def test_facts_are_written_for_people_and_a_missing_one_is_left_out(run: RunDirectory) -> None:
    words = " ".join(shown(run).replace("│", " ").split())
    assert "tokens per second 16,372 · parameters 1,234,567 · lr 2e-05 · is compiled yes · device cpu" in words
    assert "floor" not in words
    assert "export not done" in words


def test_a_long_fact_is_folded_and_never_cut(run: RunDirectory) -> None:
    _finish(run, "export", {"checksum": "long" * 40})
    printed = shown(run)
    assert "…" not in printed
    assert "long" * 40 in "".join(printed.replace("│", " ").split())


def test_only_what_finished_stages_left_is_listed(run: RunDirectory) -> None:
    """In the folder of a stage that is to be done again lies what an earlier form of the recipe made."""
    for made in ("pretrain/curve.svg", "export/model.safetensors"):
        atomic_write(run.path / made, "")
    run.update_summary("pretrain", {})
    printed = shown(run)
    assert "loss curve of pretrain:" in printed
    assert "all figures:" in printed
    assert "exported model" not in printed
    _finish(run, "export", {})
    assert "exported model:" in shown(run)
    run.keep_finished({"export": "fingerprint"})
    printed = shown(run)
    assert "exported model:" in printed
    assert "loss curve" not in printed


def test_scores_and_a_sample_are_shown(run: RunDirectory) -> None:
    printed = shown(run)
    assert printed.count("41 ± 4") == printed.count("10 ± 2") == 2
    assert "A [lamp]." in printed


def test_without_questions_there_is_no_table_of_scores(run: RunDirectory) -> None:
    _finish(run, "evaluation", {"scores": {"pretrain": {}}, "samples": []})
    assert "Right answers" not in shown(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        show_run(tmp_path, ["pretrain"], Console(file=io.StringIO()))
