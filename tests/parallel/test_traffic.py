"""The planner's formula for what processes send each other, against what torch counts: within 5%."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hornbook.model.config import config_from_recipe
from hornbook.planning.communication import step_exchanges
from hornbook.planning.layout import Layout
from hornbook.recipe_data import ModelSection

LAYOUTS = {
    "shard": {"shard": 2},
    "replicate": {"replicate": 2, "shard": 1},
    "tensor": {"tensor": 2, "shard": 1},
    "context": {"context": 2, "shard": 1},
    "1f1b": {"pipeline": 2, "shard": 1},
    "interleaved": {"pipeline": 2, "shard": 1, "schedule": "interleaved"},
}


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory, run_all: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("traffic")
    model = {"n_kv_heads": 4, "d_model": 64, "n_heads": 4, "d_ff": 128, "max_seq_len": 16}
    runs = [
        {"name": name, "layout": layout, "dtype": "float32", "model": model, "counts_traffic": True}
        for name, layout in LAYOUTS.items()
    ]
    run_all(folder, 2, [run | {"section": {"micro_batch_size": 4}} for run in runs])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_formula_agrees_with_what_torch_counts(name: str, counted: Path) -> None:
    files = sorted(counted.glob(f"{name}-*.traffic.json"))
    measured = sum(sum(json.loads(file.read_text()).values()) for file in files) / 2
    layout = Layout(**LAYOUTS[name])
    n_rows, n_tokens, vocab_size = 8, 8, 32  # of the worker
    rows = n_rows // layout.data
    config = config_from_recipe(ModelSection(preset="llama", n_layers=4, d_model=64, n_heads=4, d_ff=128), vocab_size)

    tokens = rows * n_tokens // layout.context
    exchanges = step_exchanges(config, layout, tokens, rows // 4, weight_bytes=4)
    expected = sum(exchange.n_bytes for exchange in exchanges)

    assert len(files) == 2
    assert measured == pytest.approx(expected, rel=0.05)
