"""The benchmarks of training, at a size that takes a moment: what they measure is what they say."""

import gzip
import importlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _transformers() -> None:
    pytest.importorskip("transformers")


@pytest.mark.parametrize(
    "name", ["hornbook", "hornbook qwen3", "hornbook AdamW selective", "transformers Llama", "transformers GPT-2"]
)
def test_a_contenders_loss_is_the_cross_entropy_of_its_scores_and_a_step_lowers_it(name: str) -> None:
    contenders = importlib.import_module("training_parts.contenders")
    shape = contenders.Shape(n_layers=1, d_model=32, n_heads=2, row_tokens=16, rows=2, vocab_size=64)
    contender = contenders.build(name, shape, Path("nowhere"), torch.float32, False)
    ids = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        expected = F.cross_entropy(contender.scores(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).item()
    losses = [contender.step(ids) for _ in range(4)]

    assert losses[0] == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("name", "is_recomputed"), [("hornbook AdamW", False), ("hornbook AdamW selective", True)])
def test_layers_compute_again_for_as_long_as_the_contender_lives(name: str, is_recomputed: bool) -> None:
    contenders = importlib.import_module("training_parts.contenders")
    shape = contenders.Shape(n_layers=1, d_model=32, n_heads=2, row_tokens=16, rows=2, vocab_size=64)

    contender = contenders.build(name, shape, Path("nowhere"), torch.float32, False)

    assert ("forward" in vars(contender.model.model.layers[0])) == is_recomputed


def test_a_peer_without_a_checkout_is_said_to_be_missing(tmp_path: Path) -> None:
    contenders = importlib.import_module("training_parts.contenders")

    for name in ("nanoGPT", "nanochat", "LitGPT"):
        with pytest.raises(contenders.NotHere, match=name):
            contenders.build(name, contenders.SHAPES["tiny"], tmp_path, torch.float32, False)


def test_weights_of_a_tied_head_count_as_multiplied_with() -> None:
    contenders = importlib.import_module("training_parts.contenders")
    shape = contenders.Shape(n_layers=1, d_model=32, n_heads=2, row_tokens=16, rows=2, vocab_size=64)

    contender = contenders.build("hornbook", shape, Path("nowhere"), torch.float32, False)

    assert contender.matrix_weights == 4 * 32 * 32 + 3 * 32 * shape.swiglu_width + 64 * 32


def test_the_gpu_benchmark_prints_a_line_for_each_contender(capsys: pytest.CaptureFixture[str]) -> None:
    gpu = importlib.import_module("gpu")

    gpu.print_table("test", gpu.SHAPES["test"], CPU, torch.float32, False, 2, {"measured": 1e12})

    lines = capsys.readouterr().out.splitlines()
    assert [line[:20].strip() for line in lines[2:]] == list(gpu.NAMES)
    assert lines[-1].split()[-1] == "1.00"  # Llama beside itself


def test_time_to_loss_learns_and_measures_bits_per_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    time_to_loss = importlib.import_module("time_to_loss")
    for name in ("train", "valid"):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": f"The cat sat on mat {n}."}) + "\n" for n in range(200))
    sizes = ["--layers", "1", "--width", "32", "--heads", "2", "--vocab-size", "300"]
    data = ["--data", str(tmp_path), "--budget", "2", "--validations", "2"]
    monkeypatch.setattr(sys, "argv", ["time_to_loss.py", *data, *sizes, "hornbook:rows=2,muon_lr=0.03"])

    time_to_loss.main()

    lines = capsys.readouterr().out.splitlines()
    first, last = (float(line.split()[1]) for line in lines[-2:])
    assert 0 < last < first < math.log2(300)


def test_bits_per_byte_of_even_scores_is_the_logarithm_of_the_vocabulary_over_the_bytes_of_a_token() -> None:
    time_to_loss = importlib.import_module("time_to_loss")
    contenders = importlib.import_module("training_parts.contenders")
    even = contenders.Contender(
        torch.nn.Module(), lambda ids: ids, lambda ids: torch.zeros(*ids.shape, 8), None, None, 0
    )
    token_bytes = torch.tensor([0, 2, 2, 2, 2, 2, 2, 2])

    found = time_to_loss.bits_per_byte(even, torch.randint(8, (4, 33)), token_bytes)

    assert found == pytest.approx(3 / 2)
