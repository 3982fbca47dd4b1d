"""A classifier on disk: its classes come back in order, and a folder that tells no classes is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hornbook.errors import UserError
from hornbook.model.classifier import classifier_on, load_classifier, save_classifier
from hornbook.model.transformer import Transformer

CLASSES = [f"class {number}" for number in range(11)]


@pytest.fixture
def saved(make_model: Callable[..., Transformer], tmp_path: Path) -> Path:
    classifier = classifier_on(make_model(), CLASSES, torch.Generator().manual_seed(0))
    save_classifier(classifier, tmp_path, pad_id=59, end_of_text_id=60)
    return tmp_path


def test_the_classes_come_back_in_their_order(saved: Path) -> None:
    path = saved / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"id2label": dict(sorted(config["id2label"].items()))}))  # "1", "10", "2"

    assert load_classifier(saved).classes == tuple(CLASSES)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"1": "ham", "2": "spam"}, "does not number the classes 0, 1, 2 and so on"),
        ({"ham": "0", "spam": "1"}, "does not number the classes 0, 1, 2 and so on"),
        (["ham", "spam"], "this model has no classes"),
        ({}, "this model has no classes"),
    ],
)
def test_classes_that_are_not_numbered_are_refused(labels: Any, words: str, saved: Path) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": labels}))

    with pytest.raises(UserError, match=words):
        load_classifier(saved)
