"""Classification: a head on the last token learns to tell the class of a text."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hornbook.batching.loader import spread_numbers
from hornbook.batching.packing import IGNORE_INDEX, Batch, Piece, Row, fill
from hornbook.batching.shards import DocumentTokens, MemoryDocuments
from hornbook.errors import UserError
from hornbook.inference.load import find_model
from hornbook.model.classifier import Classifier, classifier_on, load_classifier, save_classifier
from hornbook.model.lora import attach_lora, merge_lora
from hornbook.model.transformer import Transformer
from hornbook.objectives.classification import Classification, class_scores
from hornbook.recipe_training import ClassifySection
from hornbook.run_directory import write_json
from hornbook.runtime import derive_seed, pick_device, torch_generator
from hornbook.stages.confusion import accuracy, confusion_matrix, draw_confusion, f1_scores
from hornbook.stages.context import StageContext
from hornbook.stages.course import draw_course
from hornbook.stages.labelled_texts import LabelledText, read_labelled_texts, split_texts
from hornbook.stages.order import ShuffledOrder
from hornbook.stages.training import EVALUATION_ROWS_AT_ONCE, train
from hornbook.stages.tuning import on_device, starting_model
from hornbook.tokenizer.tokenizer import Tokenizer

_BEFORE = ("pretrain", "finetune")
_PANELS = {
    "loss (nats)": ("loss_nats", "validation.loss_nats"),
    "accuracy": ("accuracy", "validation.accuracy"),
}


@dataclass(frozen=True)
class EncodedTexts:
    """Texts in tokens, each with its closing <|endoftext|>, from which the class is told; the class of each, and what
    each class weighs in the loss."""

    documents: MemoryDocuments
    labels: list[int]
    class_weights: list[float]

    def batch(self, rows: Sequence[Row], row_tokens: int, pad_id: int) -> Batch:
        """Rows of texts, each with its class as the label of its last token."""
        batch = fill(rows, self.documents, row_tokens, pad_id)
        labels_BT, weights_BT = torch.full_like(batch.labels, IGNORE_INDEX), torch.zeros(batch.labels.shape)
        for index, row in enumerate(rows):
            end = 0
            for piece in row:
                end += piece.length
                label = self.labels[piece.document]
                labels_BT[index, end - 1], weights_BT[index, end - 1] = label, self.class_weights[label]
        return Batch(batch.input_ids, labels_BT, batch.position_ids, batch.document_ids, weights_BT)


def run(context: StageContext) -> dict[str, Any]:
    """Train a classifier, and leave checkpoints/, metrics.jsonl, curve.svg, confusion.svg, test.json and final/.

    A text that is longer than a row loses its end. Returns the headline facts: those of the test come first.
    """
    section = context.recipe.classify
    if section is None:
        raise ValueError("this recipe has no classify section, so its pipeline has no such stage")
    base, tokenizer = starting_model(context, section.init_from, section.row_tokens, _BEFORE)
    row_tokens = section.row_tokens or base.config.max_seq_len
    seed = derive_seed(context.recipe.seed, context.stage.name)
    split = split_texts(list(read_labelled_texts(section)), section, seed)
    context.console.print(
        f"{len(split.training):,} texts to train on, {len(split.validation):,} to validate with, "
        f"{len(split.test):,} to test; left out: {split.duplicates:,} duplicates",
        highlight=False,
    )
    weights = _class_weights(split.training, split.classes, section)
    # Texts stand class after class, and those that are looked at in the training are of all classes.
    shown = [split.validation[number] for number in spread_numbers(len(split.validation), section.evaluation_rows)]
    parts = [
        _encode(texts, split.classes, weights, tokenizer, row_tokens) for texts in (split.training, shown, split.test)
    ]
    model = classifier_on(base, split.classes, torch_generator(seed, "head"))
    on_device(model, section)
    _choose_trained(model, section, seed)
    rows_per_step = section.global_batch_tokens // row_tokens
    batches = TextBatches(parts[0], rows_per_step, row_tokens, tokenizer.pad_id, seed)

    def validate(model: Transformer) -> dict[str, float]:
        measured = _measure(model, parts[1], row_tokens, tokenizer.pad_id)
        context.console.print(f"validation: {measured['accuracy']:.1%} right", highlight=False)
        return measured

    guessing = math.log(len(split.classes))
    evaluators = {"validation": validate}
    trained = train(context, section, model, Classification(), batches, evaluators, first=guessing)
    result = trained.result
    if section.lora is not None:
        merge_lora(model)
    folder, title = context.stage.path, f"{context.recipe.name}: {context.stage.name}"
    draw_course(folder / "metrics.jsonl", folder / "curve.svg", title, _PANELS)
    (folder / "final").mkdir(parents=True, exist_ok=True)
    save_classifier(model, folder / "final", tokenizer.pad_id, tokenizer.end_of_text_id)
    tokenizer.save(folder / "final")
    matrix = confusion_matrix(
        parts[2].labels, predict_classes(model, parts[2], row_tokens, tokenizer.pad_id), len(split.classes)
    )
    draw_confusion(matrix, split.classes, folder / "confusion.svg", f"{title}, {len(split.test)} test texts")
    f1 = f1_scores(matrix)
    facts = {
        "test_accuracy": accuracy(matrix),
        "test_macro_f1": sum(f1) / len(f1),
        "test_texts": len(split.test),
        "validation_accuracy": result.last_evaluation["validation"]["accuracy"],
        "training_texts": len(split.training),
        "duplicates_left_out": split.duplicates,
        "test_f1": dict(zip(split.classes, f1, strict=True)),
        "confusion": matrix,
        "classes": list(split.classes),
    }
    write_json(folder / "test.json", facts)
    return facts | {key: value for key, value in trained.facts().items() if key not in facts}


class TextBatches:
    """Batches of packed texts in a shuffled order; the state is the number of texts taken so far."""

    def __init__(self, texts: EncodedTexts, rows_per_step: int, row_tokens: int, pad_id: int, seed: int) -> None:
        self._texts, self._rows_per_step, self._row_tokens, self._pad_id = texts, rows_per_step, row_tokens, pad_id
        self._order, self._taken = ShuffledOrder(len(texts.labels), seed), 0

    def next_batch(self) -> Batch:
        """The next texts of the order, as many as fit: each goes where it leaves the least room."""
        rows: list[Row] = [[] for _ in range(self._rows_per_step)]
        room = [self._row_tokens] * self._rows_per_step
        while True:
            (text,) = self._order.take(self._taken, 1)
            length = int(self._texts.documents.lengths[text])
            fitting = [row for row in range(len(rows)) if room[row] >= length]
            if not fitting:
                return self._texts.batch(rows, self._row_tokens, self._pad_id)
            row = min(fitting, key=room.__getitem__)
            rows[row].append(Piece(text, 0, length))
            room[row] -= length
            self._taken += 1

    def state_dict(self) -> dict[str, Any]:
        return {"texts_taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._taken = state["texts_taken"]


def predict_classes(model: Transformer, texts: EncodedTexts, row_tokens: int, pad_id: int) -> list[int]:
    """The likeliest class of each text, in order."""
    return [
        int(scores.argmax()) for batch in _one_text_rows(texts, row_tokens, pad_id) for scores in _scores(model, batch)
    ]


def predict(run: Path, texts: Sequence[str]) -> list[dict[str, float]]:
    """`hornbook predict`: the probability of each class for each text, by the classifier of a run or in a folder.

    Raises UserError where there is none.
    """
    folder = find_model(run, ("classify",))
    model, tokenizer = load_classifier(folder).to(pick_device("auto")), Tokenizer.load(folder)
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise UserError("predict: a text holds bytes that are no characters. Give it in UTF-8.")
    if not all(text.strip() for text in texts):
        raise UserError("predict: a text is empty, so there is nothing to tell its class from. Give some words.")
    row_tokens = model.config.max_seq_len
    encoded = _encode(
        [LabelledText(text, model.classes[0]) for text in texts], model.classes, None, tokenizer, row_tokens
    )
    probabilities = [
        scores.softmax(-1).tolist()
        for batch in _one_text_rows(encoded, row_tokens, tokenizer.pad_id)
        for scores in _scores(model, batch)
    ]
    return [dict(zip(model.classes, row, strict=True)) for row in probabilities]


@torch.no_grad()
def _scores(model: Transformer, batch: Batch) -> torch.Tensor:
    return class_scores(model, batch.to(model.head_weight.device)).cpu()


def _one_text_rows(texts: EncodedTexts, row_tokens: int, pad_id: int) -> Iterator[Batch]:
    """Every text once and in order, each in a row of its own as short as the batch allows."""
    lengths = texts.documents.lengths.tolist()
    for start in range(0, len(lengths), EVALUATION_ROWS_AT_ONCE):
        numbers = range(start, min(start + EVALUATION_ROWS_AT_ONCE, len(lengths)))
        rows: list[Row] = [[Piece(number, 0, lengths[number])] for number in numbers]
        yield texts.batch(rows, min(row_tokens, max(lengths[number] for number in numbers)), pad_id)


def _measure(model: Transformer, texts: EncodedTexts, row_tokens: int, pad_id: int) -> dict[str, float]:
    objective, loss, right = Classification(), 0.0, 0.0
    for batch in _one_text_rows(texts, row_tokens, pad_id):
        loss_sum, sums = objective.loss_sum(model, batch.to(model.head_weight.device))
        loss, right = loss + loss_sum.item(), right + sums["accuracy"].item()
    return {"loss_nats": loss / len(texts.labels), "accuracy": right / len(texts.labels)}


def _encode(
    texts: Sequence[LabelledText],
    classes: Sequence[str],
    class_weights: list[float] | None,
    tokenizer: Tokenizer,
    row_tokens: int,
) -> EncodedTexts:
    documents = []
    for text, ids in zip(texts, tokenizer.encode_batch([text.text for text in texts]), strict=True):
        kept = [*ids.tolist()[: row_tokens - 1], tokenizer.end_of_text_id]
        documents.append(DocumentTokens(kept, len(text.text.encode())))
    weights = class_weights or [1.0] * len(classes)
    return EncodedTexts(MemoryDocuments(documents), [classes.index(text.label) for text in texts], weights)


def _class_weights(texts: Sequence[LabelledText], classes: Sequence[str], section: ClassifySection) -> list[float]:
    """What each class weighs in the loss: 1, or so much that all weigh the same and a text weighs 1 on average."""
    if section.class_weights == "none":
        return [1.0] * len(classes)
    counts = Counter(text.label for text in texts)
    return [len(texts) / (len(classes) * counts[label]) for label in classes]


def _choose_trained(model: Classifier, section: ClassifySection, seed: int) -> None:
    """Freeze what the recipe does not train. The head and the final norm always learn."""
    if section.lora is not None:
        attach_lora(model, section.lora, seed)
    elif section.train_layers is not None:
        n_frozen = max(0, model.config.n_layers - section.train_layers)
        frozen = [model.model.embed_tokens, *model.model.layers[:n_frozen]]
        frozen += [model.model.embed_positions] if model.model.embed_positions is not None else []
        for module in frozen:
            module.requires_grad_(False)
    for module in (model.score, model.model.norm):
        module.requires_grad_(True)
