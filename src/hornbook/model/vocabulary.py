"""Room for tokens that a model was made without, such as those of a conversation."""

from dataclasses import replace

import torch
from torch import Tensor

from hornbook.model.transformer import Transformer

_WITH_A_ROW_FOR_EACH_TOKEN = ("model.embed_tokens.weight", "lm_head.weight")


def with_vocabulary_of(model: Transformer, vocab_size: int) -> Transformer:
    """The model with at least `vocab_size` rows in its embedding and its head.

    A new row is the mean of the old ones: then a new token is about as likely as an average one, and the model
    predicts nearly what it did before (Hewitt 2021, "Initializing new word embeddings for pretrained language
    models"). Rows to spare, which many models have, stay as they are.
    """
    if vocab_size <= model.config.vocab_size:
        return model
    n_new = vocab_size - model.config.vocab_size
    weights = {
        name: _with_rows_added(tensor, n_new) if name in _WITH_A_ROW_FOR_EACH_TOKEN else tensor
        for name, tensor in model.state_dict().items()
    }
    with torch.device("meta"):
        grown = Transformer(replace(model.config, vocab_size=vocab_size))
    grown.load_state_dict(weights, assign=True)
    return grown


def _with_rows_added(rows: Tensor, n_new: int) -> Tensor:
    return torch.cat([rows, rows.mean(dim=0, keepdim=True).expand(n_new, -1)])
