"""Labelled texts are read with their place in every error, and split so that no text stands on both sides."""

import json
from collections import Counter
from pathlib import Path

import pytest

from hornbook.errors import UserError
from hornbook.recipe_training import ClassifySection
from hornbook.stages.confusion import accuracy, confusion_matrix, f1_scores
from hornbook.stages.labelled_texts import LabelledText, essence_of, read_labelled_texts, split_texts


def section(source: Path, **more: object) -> ClassifySection:
    return ClassifySection(tokens=1, global_batch_tokens=1, source=f"files:{source}", **more)  # type: ignore[arg-type]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


EXPECTED = [LabelledText('He said "hi', "ham"), LabelledText("Win, now", "spam")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", 'ham\tHe said "hi\nspam\tWin, now\n'),
        ("a.tsv", 'text\tlabel\nHe said "hi\tham\nWin, now\tspam\n'),
        ("a.csv", 'label,text\nham,"He said ""hi"\nspam,"Win, now"\n'),
        ("a.jsonl", "\n".join(json.dumps({"label": text.label, "text": text.text}) for text in EXPECTED)),
    ],
)
def test_tables_with_and_without_a_header_and_json_give_the_same_texts(name: str, text: str, tmp_path: Path) -> None:
    assert list(read_labelled_texts(section(written(tmp_path / name, text)))) == EXPECTED


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.tsv", "ham\thello\nspam\n", "has 1 columns where 2 belong"),
        ("a.tsv", "ham\thello\nspam\t \n", "its text is empty"),
        ("a.tsv", "ham\thello\n\tbye\n", "its label is empty"),
        ("a.jsonl", '{"label": "ham", "text": "hello"}\n{"label": "ham", "message": "x"}', "needs text and label"),
    ],
)
def test_a_row_that_is_no_labelled_text_is_named_with_its_line(
    name: str, text: str, complaint: str, tmp_path: Path
) -> None:
    path = written(tmp_path / name, text)
    with pytest.raises(UserError, match=complaint) as caught:
        list(read_labelled_texts(section(path)))
    assert str(caught.value).startswith(f"{path}, line 2: ")


def test_no_text_and_no_like_of_it_stands_on_both_sides_and_every_class_is_on_each(real_data: Path) -> None:
    texts = list(read_labelled_texts(section(real_data / "classify" / "SMSSpamCollection.tsv")))
    assert len(texts) == 5574
    split = split_texts(texts, section(Path("x"), balance=True), seed=1)
    parts = [split.training, split.validation, split.test]
    essences = [{essence_of(text.text) for text in part} for part in parts]
    assert not essences[0] & essences[1]
    assert not essences[0] & essences[2]
    assert not essences[1] & essences[2]
    for part in parts[1:]:
        labels = [text.label for text in part]
        assert labels.count("ham") == labels.count("spam") > 50
    assert sum(map(len, parts)) + split.duplicates == len(texts)


def test_balanced_parts_have_as_many_texts_of_each_class_and_all_others_are_trained_on() -> None:
    texts = [
        LabelledText(f"text {chr(97 + n // 26)}{chr(97 + n % 26)}", "rare" if n < 20 else "common") for n in range(120)
    ]
    split = split_texts(texts, section(Path("x"), balance=True), seed=1)
    counts = [Counter(text.label for text in part) for part in (split.training, split.validation, split.test)]
    assert counts == [{"rare": 14, "common": 94}, {"rare": 2, "common": 2}, {"rare": 4, "common": 4}]


def test_like_texts_count_as_one_and_the_split_does_not_depend_on_their_order() -> None:
    texts = [LabelledText(f"text {'abcdefghijkl'[n]}", "xy"[n % 2]) for n in range(12)]
    like = [LabelledText("TEXT, a!", "x")]
    first = split_texts([*texts, *like], section(Path("x")), seed=1)
    again = split_texts([*like, *reversed(texts)], section(Path("x")), seed=1)
    assert first.duplicates == 1
    assert {essence_of(text.text) for text in first.test} == {essence_of(text.text) for text in again.test}


def test_classes_with_too_few_texts_are_refused() -> None:
    texts = [LabelledText(f"text {'abcdefghijkl'[n]}", "x") for n in range(9)]
    with pytest.raises(UserError, match="there is only the class 'x'"):
        split_texts(texts, section(Path("x")), seed=1)
    with pytest.raises(UserError, match="the class 'y' has 1 different texts, too few"):
        split_texts([*texts, LabelledText("other", "y")], section(Path("x")), seed=1)
    with pytest.raises(UserError, match="there is no text at all"):
        split_texts([], section(Path("x")), seed=1)


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    texts = [LabelledText(f"{label} {word}", label) for label in ("ham", "spam") for word in "abcdef"]
    greedy = section(Path("x"), validation_fraction=0.45, test_fraction=0.45)
    with pytest.raises(UserError, match=r"take all 6 texts of the class 'ham', so there is none to train on"):
        split_texts(texts, greedy, seed=1)


def test_accuracy_and_f1_are_those_of_the_definition() -> None:
    matrix = confusion_matrix([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 0], 3)
    assert matrix == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert accuracy(matrix) == pytest.approx(0.5)
    assert f1_scores(matrix) == pytest.approx([2 * 2 / (3 + 4), 2 * 1 / (2 + 2), 0.0])
