"""Every layout trains as one process does: losses, norms of gradients, validation and final weights of 20 steps.

The batches are ragged and packed, cut into micro-batches, the gradient is clipped at each step, and the learning rate
warms up and decays. The matrix is generated: each layout with each kind of training.
"""

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

RunAll = Callable[..., None]

MINIATURE = "shard2-tensor2-pipeline2"
"""The cuts of recipes/llama-8b.toml, in small."""
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "replicate2": (2, {"replicate": 2, "shard": 1}),
    "shard2": (2, {"shard": 2}),
    "tensor2": (2, {"tensor": 2}),
    "gpipe2": (2, {"pipeline": 2, "schedule": "gpipe"}),
    "1f1b2": (2, {"pipeline": 2, "schedule": "1f1b"}),
    "interleaved2": (2, {"pipeline": 2, "schedule": "interleaved"}),
    "replicate2-shard2": (4, {"replicate": 2, "shard": 2}),
    "shard2-tensor2": (4, {"shard": 2, "tensor": 2}),
    "context2": (2, {"context": 2, "shard": 1}),
    "shard2-context2": (4, {"shard": 2, "context": 2}),
    "context2-tensor2": (4, {"context": 2, "tensor": 2, "shard": 1}),
    "shard2-pipeline2": (4, {"shard": 2, "pipeline": 2}),
    "tensor2-pipeline2": (4, {"tensor": 2, "pipeline": 2, "schedule": "interleaved"}),
    MINIATURE: (8, {"shard": 2, "tensor": 2, "pipeline": 2, "schedule": "interleaved"}),
}
KINDS: dict[str, dict[str, Any]] = {
    # Tied embeddings, which a pipeline holds twice; two heads share each key.
    "float64": {"dtype": "float64", "model": {"preset": "llama"}},
    # Learned positions and biases.
    "float32": {"dtype": "float32", "model": {"preset": "gpt2", "n_kv_heads": None}},
    # Norms of heads, and a head of its own.
    "muon": {
        "dtype": "float64",
        "model": {"preset": "qwen3", "tie_embeddings": False, "head_dim": 4},
        "section": {"optimizer": "muon"},
    },
}
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "muon": 1e-6}
"""Relative. Muon's iterations lift the smallest singular values by a factor of hundreds, and rounding with them."""
QUICK = [("shard2", "float64"), ("tensor2", "float64"), ("1f1b2", "float64"), ("context2", "float64")]

_spread = [name for name in LAYOUTS if name != "one"]
_all = [(layout, kind) for layout in _spread for kind in KINDS]
_moves = [pair for pair in permutations(LAYOUTS, 2) if MINIATURE not in pair or "one" in pair]


def _runs(pairs: list[tuple[str, str]], world_size: int) -> list[dict[str, Any]]:
    return [
        {"name": f"{layout}-{kind}", "layout": LAYOUTS[layout][1], **KINDS[kind]}
        for layout, kind in pairs
        if LAYOUTS[layout][0] == world_size
    ]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, run_all: RunAll) -> Path:
    """The folder of the quick runs."""
    folder = tmp_path_factory.mktemp("layouts")
    run_all(folder, 1, _runs([("one", "float64")], 1))
    run_all(folder, 2, _runs(QUICK, 2))
    return folder


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory, run_all: RunAll) -> Path:
    """The folder of the runs of every layout and kind."""
    folder = tmp_path_factory.mktemp("layouts")
    run_all(folder, 1, _runs([("one", kind) for kind in KINDS], 1))
    for world_size in (2, 4, 8):
        run_all(folder, world_size, _runs(_all, world_size))
    return folder


@pytest.fixture(scope="module")
def moved(every: Path, run_all: RunAll) -> Path:
    """The same folder, when each float64 training has gone on from the middle of each other one."""
    for world_size in (1, 2, 4, 8):
        runs = [
            {"name": f"{before}-to-{after}", "layout": LAYOUTS[after][1], "continues": f"{before}-float64"}
            | KINDS["float64"]
            for before, after in _moves
            if LAYOUTS[after][0] == world_size
        ]
        run_all(every, world_size, runs, timeout_seconds=3600)
    return every


def _assert_same(folder: Path, name: str, reference: str, tolerance: float) -> None:
    expected, measured = (json.loads((folder / f"{run}.json").read_text()) for run in (reference, name))
    assert len(measured) == 20 + 20 + 2
    assert measured == pytest.approx(expected, rel=tolerance)
    weights, found = (load_file(folder / f"{run}.safetensors") for run in (reference, name))
    assert weights.keys() == found.keys()
    for key, weight in weights.items():
        if key.endswith("k_proj.bias"):
            # It adds the same to all scores of a token, so its gradient is 0 but for rounding, which Adam makes large.
            continue
        # Relative to the largest of its numbers: single ones may be as good as zero.
        difference = (found[key] - weight).abs().max() / weight.abs().max()
        assert difference < tolerance, f"{key}: {difference:.1e}"


@pytest.mark.parametrize(("layout", "kind"), QUICK)
def test_a_layout_trains_as_one_process_does(layout: str, kind: str, quick: Path) -> None:
    _assert_same(quick, f"{layout}-{kind}", f"one-{kind}", TOLERANCES[kind])


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "kind"), _all)
def test_every_layout_trains_as_one_process_does(layout: str, kind: str, every: Path) -> None:
    _assert_same(every, f"{layout}-{kind}", f"one-{kind}", TOLERANCES[kind])


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), _moves)
def test_a_training_goes_on_in_any_other_layout(before: str, after: str, moved: Path) -> None:
    _assert_same(moved, f"{before}-to-{after}", "one-float64", TOLERANCES["float64"])


@pytest.mark.slow
def test_out_of_memory_in_all_processes_shrinks_the_micro_batch_and_changes_nothing(
    tmp_path: Path, run_all: RunAll
) -> None:
    run_all(tmp_path, 1, _runs([("one", "float64")], 1))
    run = {"name": "little", "layout": {"shard": 2}, "rows_in_memory": 2, "section": {"micro_batch_size": 8}}
    run_all(tmp_path, 2, [run | {"dtype": "float64", "model": KINDS["float64"]["model"]}])

    _assert_same(tmp_path, "little", "one-float64", TOLERANCES["float64"])
    assert json.loads((tmp_path / "little/checkpoints/micro_batch.json").read_text())["rows"] == 2
