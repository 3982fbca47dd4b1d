"""Texts with a class: read from files or a hub, and split so that no text stands on both sides.

Texts that differ only in case, punctuation and which digits they have count as the same one: mass messages differ so.
Of each only the first is kept, for a text that a model was trained on, or nearly, tests nothing.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hornbook.errors import UserError
from hornbook.recipe_training import ClassifySection
from hornbook.runtime import derive_seed
from hornbook.stages.rows import fields_of, read_rows

_FEWEST_OF_A_CLASS = 5
_FIELD = "classify.source"


@dataclass(frozen=True)
class LabelledText:
    """A text and the name of its class."""

    text: str
    label: str


@dataclass(frozen=True)
class Split:
    """Texts to train on, to watch the training with, and to test in the end; each class is in all three.

    duplicates: texts left out because a like one is there.
    """

    classes: tuple[str, ...]
    training: list[LabelledText]
    validation: list[LabelledText]
    test: list[LabelledText]
    duplicates: int


def read_labelled_texts(section: ClassifySection) -> Iterator[LabelledText]:
    """All texts of the sources. Raises UserError where a row has no text or no class, with its place."""
    for source in section.source:
        columns: list[str] | None = None
        for place, row in read_rows(source, _FIELD):
            if isinstance(row, list) and columns is None:
                has_header = {section.text_field, section.label_field} <= set(row)
                columns = row if has_header else [section.label_field, section.text_field]
                if has_header:
                    continue
            yield _labelled_text(place, row, columns, section)


def _labelled_text(place: str, row: Any, columns: list[str] | None, section: ClassifySection) -> LabelledText:
    if isinstance(row, list):
        if columns is None or len(row) != len(columns):
            raise UserError(f"{place}: has {len(row)} columns where {len(columns or [])} belong: a class and a text")
        row = dict(zip(columns, row, strict=True))
    fields = (section.text_field, section.label_field)
    if not isinstance(row, dict) or any(field not in row for field in fields):
        raise UserError(
            f"{place}: is no text with a class; it needs {' and '.join(fields)}, but has: {fields_of(row)}. "
            "Name the fields with classify.text_field and classify.label_field."
        )
    text, label = row[section.text_field], row[section.label_field]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{place}: its {section.text_field} is empty or no text. Remove the row.")
    if not isinstance(label, str | int | bool) or not str(label).strip():
        raise UserError(f"{place}: its {section.label_field} is empty or no class. Remove the row.")
    return LabelledText(text, str(label))


def essence_of(text: str) -> str:
    """A text without case and punctuation, and with 0 for every digit."""
    return re.sub(r"\d", "0", re.sub(r"[\W_]+", " ", text.casefold())).strip()


def split_texts(texts: Sequence[LabelledText], section: ClassifySection, seed: int) -> Split:
    """The split that a recipe asks for, the same shares of each class.

    Which side a text falls on is hashed from the seed and the text. Raises UserError where there are fewer than two
    classes, or one of them has too few texts.
    """
    kept: dict[str, LabelledText] = {}
    for text in texts:
        kept.setdefault(essence_of(text.text), text)
    counts = Counter(text.label for text in kept.values())
    if len(counts) < 2:
        only = f"only the class {next(iter(counts))!r}" if counts else "no text at all"
        raise UserError(f"{_FIELD}: there is {only}, so there is nothing to tell apart. Give texts of two or more.")
    rarest, fewest = min(counts.items(), key=lambda item: item[1])
    if fewest < _FEWEST_OF_A_CLASS:
        raise UserError(
            f"{_FIELD}: the class {rarest!r} has {fewest} different texts, too few for training, validation and test. "
            f"Give at least {_FEWEST_OF_A_CLASS}, or leave the class out."
        )
    classes = tuple(sorted(counts))
    parts: tuple[list[LabelledText], ...] = ([], [], [])
    for label in classes:
        of_class = [essence for essence, text in kept.items() if text.label == label]
        of_class.sort(key=lambda essence: derive_seed(seed, "classify split", essence))
        # Texts of the common classes that a balanced test has no use for are trained on: they are too dear to lose.
        n_of_class = fewest if section.balance else len(of_class)
        n_test = max(1, round(section.test_fraction * n_of_class))
        n_validation = max(1, round(section.validation_fraction * n_of_class))
        if n_test + n_validation >= len(of_class):
            raise UserError(
                f"classify.test_fraction, classify.validation_fraction: take all {len(of_class)} texts of the class "
                f"{label!r}, so there is none to train on. Lower them, or give more texts."
            )
        for number, essence in enumerate(of_class):
            place = 2 if number < n_test else 1 if number < n_test + n_validation else 0
            parts[place].append(kept[essence])
    training, validation, test = parts
    return Split(classes, training, validation, test, len(texts) - len(kept))
