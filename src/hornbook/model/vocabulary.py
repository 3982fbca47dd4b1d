"""Room for tokens that a model was made without, such as those of a conversation; and training their rows alone.

Shapes: V tokens, D d_model, N tokens whose rows are trained.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator

TABLES = ("model.embed_tokens", "lm_head")
"""What has a row for each token. Where both are one matrix, there is no second module."""

_NOISE = 0.1
"""How far new rows lie about the mean, as a share of how far the old ones do."""


def with_vocabulary_of(model: Transformer, vocab_size: int) -> Transformer:
    """The model with at least `vocab_size` rows in its embedding and its head.

    A new row is near the mean of the old ones: then a new token is about as likely as an average one, and the model
    predicts nearly what it did before (Hewitt 2021, "Initializing new word embeddings for pretrained language
    models"). A little noise tells the new tokens apart. Rows to spare, which many models have, stay as they are.
    """
    if vocab_size <= model.config.vocab_size:
        return model
    n_new = vocab_size - model.config.vocab_size
    weights = {
        name: _with_rows_added(name, tensor, n_new) if name.removesuffix(".weight") in TABLES else tensor
        for name, tensor in model.state_dict().items()
    }
    with torch.device("meta"):
        grown = Transformer(replace(model.config, vocab_size=vocab_size))
    grown.load_state_dict(weights, assign=True)
    return grown


def _with_rows_added(name: str, rows_VD: Tensor, n_new: int) -> Tensor:
    noise = torch.randn(n_new, rows_VD.shape[1], generator=torch_generator("added rows", name))
    return torch.cat([rows_VD, rows_VD.mean(0) + _NOISE * rows_VD.std(0) * noise])


class TrainedRows(nn.Module):
    """An embedding or a head of which the rows of `tokens` are trained, and the others are frozen.

    They are a small table of their own, in the place of those in the large one: so nothing that an optimizer does,
    weight decay included, can touch the others, and it keeps its state for the few rows alone.
    """

    def __init__(self, table: nn.Embedding | nn.Linear, tokens: range) -> None:
        super().__init__()
        self.table, self.tokens = table.requires_grad_(False), tokens
        rows_ND = table.weight.detach()[tokens.start : tokens.stop].clone()
        self.rows = nn.Embedding.from_pretrained(rows_ND, freeze=False)

    @property
    def weight(self) -> Tensor:
        """(V,D): the rows of all tokens."""
        frozen_VD = self.table.weight
        return torch.cat([frozen_VD[: self.tokens.start], self.rows.weight, frozen_VD[self.tokens.stop :]])

    def forward(self, ids: Tensor) -> Tensor:
        """The rows (...,D) of the tokens `ids`, int64. A head is never called: its `weight` is read."""
        is_trained = (ids >= self.tokens.start) & (ids < self.tokens.stop)
        places = (ids - self.tokens.start).clamp(0, len(self.tokens) - 1)
        return torch.where(is_trained[..., None], self.rows(places), self.table(ids))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The plain table, with the rows in it as they are now."""
        self.table.weight = nn.Parameter(self.weight)
        return self.table
