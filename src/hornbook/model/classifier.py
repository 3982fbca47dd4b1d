"""A Transformer that tells the class of a text from its last token.

The scores of the vocabulary give way to those of the classes, one row of a new head for each; all else is the same
model. On disk it is what Hugging Face's transformers calls ForSequenceClassification, and loads there as it is.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hornbook.errors import UserError
from hornbook.model.config import ModelConfig
from hornbook.model.huggingface import from_hugging_face, to_hugging_face
from hornbook.model.huggingface_config import CONFIG_FILE, config_to_json, read_config
from hornbook.model.transformer import Transformer
from hornbook.model.weight_files import MAX_SHARD_BYTES, read_weights, write_weights
from hornbook.run_directory import read_json, write_json

_SCORE = "score.weight"


class Classifier(Transformer):
    """`logits` are the scores of the classes; whoever asks takes the vector of a text's last token."""

    def __init__(self, config: ModelConfig, classes: Sequence[str]) -> None:
        # Tied, because no head of the vocabulary is kept beside.
        super().__init__(replace(config, tie_embeddings=True))
        self.classes = tuple(classes)
        self.score = nn.Linear(config.d_model, len(self.classes), bias=False)

    @property
    def head_weight(self) -> Tensor:
        """(C,D): one row for each class."""
        return self.score.weight


def classifier_on(model: Transformer, classes: Sequence[str], generator: torch.Generator) -> Classifier:
    """A classifier with the model's layers, and a head whose start is small enough that all classes seem alike."""
    classifier = Classifier(model.config, classes)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("lm_head")}
    start = torch.randn(classifier.score.weight.shape, generator=generator) / (10 * model.config.d_model**0.5)
    classifier.load_state_dict(weights | {_SCORE: start})
    return classifier


def save_classifier(classifier: Classifier, directory: Path, pad_id: int, end_of_text_id: int) -> None:
    """Write it for `AutoModelForSequenceClassification.from_pretrained(directory)`, with the names of its classes."""
    tensors = to_hugging_face(classifier.state_dict(), classifier.config)
    stored = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    config = config_to_json(classifier.config)
    kind = config["architectures"][0].replace("ForCausalLM", "").replace("LMHeadModel", "")
    config |= {
        "architectures": [f"{kind}ForSequenceClassification"],
        "id2label": {str(number): name for number, name in enumerate(classifier.classes)},
        "label2id": {name: number for number, name in enumerate(classifier.classes)},
        "pad_token_id": pad_id,
        "eos_token_id": end_of_text_id,
        "bos_token_id": end_of_text_id,
        "dtype": "float32",
    }
    write_weights(directory, stored, MAX_SHARD_BYTES)
    write_json(directory / CONFIG_FILE, config)


def load_classifier(directory: Path) -> Classifier:
    """Read what `save_classifier` wrote. Raises UserError where it is no classifier, or its weights do not fit."""
    config = read_config(directory)
    labels = read_json(directory / CONFIG_FILE).get("id2label")
    tensors = dict(read_weights(directory))
    if not isinstance(labels, dict) or not labels or _SCORE not in tensors:
        raise UserError(f"{directory}: this model has no classes. Train one with a recipe that has a section classify.")
    numbers = [str(number) for number in range(len(labels))]
    if set(labels) != set(numbers):
        raise UserError(f"{directory / CONFIG_FILE}: id2label does not number the classes 0, 1, 2 and so on")
    score = tensors.pop(_SCORE)
    classifier = Classifier(config, [labels[number] for number in numbers])
    try:
        classifier.load_state_dict(from_hugging_face(tensors, classifier.config) | {_SCORE: score})
    except (KeyError, RuntimeError) as problem:
        raise UserError(f"{directory}: the weights do not fit {CONFIG_FILE} ({problem})") from None
    return classifier
