"""The recorded run, and the same with all that later runs leave for the book: pictures, an expectation, a verdict."""

import json
import shutil
from pathlib import Path

import pytest

from hornbook.book.reference import REFERENCE_RUN

N_WINDOWS = 20
HABITS = ("the token before", "what came after it before", "the same token before")


def _pictures() -> dict:
    tokens = ["Mira", " has", " the", " kite", ".", " Mira"]
    heads = [
        {"layer": layer, "head": head, "habits": dict.fromkeys(HABITS, layer / 10 + head / 100)}
        for layer in (1, 2) for head in (1, 2)
    ]  # fmt: skip
    weights = [[round(1 / (t + 1), 3)] * (t + 1) for t in range(len(tokens))]
    words = ["kite", "lamp", "red", "blue"]
    return {
        "attention": {
            "tokens": tokens,
            "heads": heads,
            "maps": [{"habit": habit, "layer": 2, "head": 2, "weights": weights} for habit in HABITS],
        },
        "embeddings": {
            "of_words": 40,
            "neighbours": [{"word": "kite", "neighbours": [{"word": "lamp", "cosine": 0.625}]}],
            "words": words,
            "cosines": [[1.0 if a == b else 0.125 for a in words] for b in words],
        },
        "tokens": {
            "of_bytes": [1, 2, 3],
            "in_vocabulary": [256, 40, 10],
            "in_text": [30, 20, 10],
            "most_frequent": [{"token": " the", "times": 30}] * 8,
            "longest": [" kite"] * 5,
        },
        "memory": {
            "rows": 4,
            "precision": "float32",
            "device": "cpu",
            "bytes": {"weights": 5_249_536, "gradients": 5_249_536, "optimizer": 7_353_344, "activations": 66_123_456,
                      "cast_weights": 0},
            "process_bytes": 612_345_678,
        },
        "samples": {"prompt": "It was a rainy Monday.", "samples": [{"step": 500, "text": " The kite the kite."},
                                                                     {"step": 2000, "text": " Mira had the kite."}]},
    }  # fmt: skip


@pytest.fixture
def full_run(tmp_path: Path) -> Path:
    """The recorded run with pictures of its model, and a curve that left its band in the seventh window."""
    path = tmp_path / "full-run"
    shutil.copytree(REFERENCE_RUN, path)
    for name, record in _pictures().items():
        (path / "pretrain" / f"{name}.json").write_text(json.dumps(record))
    band = {"mean": [3.5] * N_WINDOWS, "low": [0.1] * 6 + [3.4] * 14, "high": [9.0] * N_WINDOWS}
    stages = {"pretrain": {"bands": {"loss_nats": band}}}
    (path / "expected.json").write_text(json.dumps({"seeds": [1, 2, 3], "stages": stages}))
    # As a run from before there were expectations left it.
    unjudged_path = path / "finetune" / "stage.json"
    unjudged = json.loads(unjudged_path.read_text())
    unjudged["facts"].pop("verdict", None)
    unjudged_path.write_text(json.dumps(unjudged))
    record_path = path / "pretrain" / "stage.json"
    record = json.loads(record_path.read_text())
    record["facts"]["verdict"] = {
        "is_within": False,
        "expected_from": "the recipe's reference of 3 seeds",
        "outside": [{"figure": "loss_nats", "since_step": 601, "off_by": -0.49}],
        "causes": [{"name": "a leak", "because": "The loss is far too low.", "check": "Print a row with its labels."}],
        "sentence": "Not as expected since step 601 (loss_nats by -49%).",
    }
    record["facts"]["plan_score"] = {
        "parameters": {"predicted": 1_312_384, "measured": 1_312_384, "off_by": 0.0},
        "peak_memory_bytes": {"predicted": 200_000_000, "measured": None, "off_by": None},
    }
    record_path.write_text(json.dumps(record))
    return path
