"""The drawing says what the log says, also to those who do not see it."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hornbook.training.curve import _smoothed, draw_curve

SVG = "{http://www.w3.org/2000/svg}"


def _draw(folder: Path, records: list[dict[str, Any]], **options: Any) -> ElementTree.Element:
    metrics_path = folder / "metrics.jsonl"
    metrics_path.write_text("".join(json.dumps(record) + "\n" for record in records))
    draw_curve(metrics_path, folder / "curve.svg", **options)
    return ElementTree.fromstring((folder / "curve.svg").read_text())


def _records(n_steps: int) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = [
        {"step": step, "tokens": 100 * step, "loss_nats": 5.0 - step / n_steps} for step in range(1, n_steps + 1)
    ]
    records[n_steps // 2]["loss_nats"] = None
    records[n_steps // 2]["evaluation"] = {"validation": {"bits_per_byte": 1.5}}
    records[-1]["evaluation"] = {"validation": {"bits_per_byte": 1.25}, "other": {"accuracy": 0.5}}
    return records


def _texts(drawing: ElementTree.Element) -> str:
    return " ".join(text for element in drawing.iter(f"{SVG}text") for text in element.itertext())


def test_the_curve_shows_training_validation_and_the_floor(tmp_path: Path) -> None:
    drawing = _draw(tmp_path, _records(40), title="pretrain <of> a run", floor_bits_per_byte=0.75)

    texts = _texts(drawing)
    for expected in ("pretrain <of> a run", "nats per token", "validation", "generator's own bits per byte"):
        assert expected in texts
    assert "accuracy" not in texts


def test_a_screen_reader_is_told_the_title_and_the_numbers(tmp_path: Path) -> None:
    drawing = _draw(tmp_path, _records(40), title="pretrain <of> a run")

    assert drawing.get("role") == "img"
    assert drawing.find(f"{SVG}title").text == "pretrain <of> a run"
    description = drawing.find(f"{SVG}desc").text
    assert "bits per byte go from 1.500 to 1.250" in description
    assert "loss goes from 4.97 to 4.0" in description
    assert description in drawing.get("aria-label")


def test_a_run_without_validation_has_one_panel(tmp_path: Path) -> None:
    records = [record for record in _records(40) if "evaluation" not in record]

    texts = _texts(_draw(tmp_path, records, title="a run", floor_bits_per_byte=0.75))

    assert "training loss" in texts
    assert "bits per byte" not in texts


def test_the_same_log_gives_the_same_drawing(tmp_path: Path) -> None:
    _draw(tmp_path, _records(40), title="a run")
    first = (tmp_path / "curve.svg").read_bytes()
    _draw(tmp_path, _records(40), title="a run")

    assert (tmp_path / "curve.svg").read_bytes() == first


def test_a_log_of_one_step_can_be_drawn(tmp_path: Path) -> None:
    assert _draw(tmp_path, [{"step": 1, "tokens": 100, "loss_nats": 5.0}], title="a run") is not None


def test_smoothing_starts_at_the_first_value_and_keeps_a_constant() -> None:
    assert _smoothed([3.0] * 100) == [3.0] * 100 or max(abs(value - 3.0) for value in _smoothed([3.0] * 100)) < 1e-12
    wiggling = _smoothed([1.0, -1.0] * 500)
    assert wiggling[0] == 1.0
    assert abs(wiggling[-1]) < 0.05
