"""Choosing the next token from the model's scores.

Shapes: B rows, V vocabulary, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hornbook.errors import UserError

LEAST_PENALTY, MOST_PENALTY = 0.01, 100.0
"""Bounds of the repetition penalty: far beyond what anybody writes with, and scores stay finite."""

_LEAST_TEMPERATURE = 1e-6
"""Under it the best token's probability is 1 as far as numbers go, and some are too small to divide by."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    temperature: 0, or next to it, takes the best token always; 1 draws with the model's own probabilities; more is
    wilder. top_k: only the k best tokens can be drawn. top_p: only the best tokens that together reach this
    probability can be drawn (nucleus sampling, Holtzman et al., arXiv 1904.09751). min_p: only tokens with at
    least this share of the best token's probability can be drawn (Nguyen et al., arXiv 2407.01082).
    repetition_penalty: scores of tokens that the text has already are divided by it where positive and
    multiplied where negative; 1 changes nothing (Keskar et al., arXiv 1909.05858, section 4.1, with the sign
    respected as Hugging Face does).
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature: must be 0 or more, but is {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k: must be 1 or more, but is {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p: must be above 0 and at most 1, but is {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise UserError(f"min_p: must be from 0 to 1, but is {self.min_p}")
        if not LEAST_PENALTY <= self.repetition_penalty <= MOST_PENALTY:
            given = self.repetition_penalty
            raise UserError(f"repetition_penalty: must be from {LEAST_PENALTY} to {MOST_PENALTY:g}, but is {given}")

    @property
    def is_greedy(self) -> bool:
        """Whether the best token is taken always, so that no random numbers are needed."""
        return self.temperature < _LEAST_TEMPERATURE

    @property
    def looks_back(self) -> bool:
        """Whether a choice depends on the tokens before it."""
        return self.repetition_penalty != 1

    def penalise(self, logits_BV: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
        """The scores after the repetition penalty, given each row's text so far; not read where it `looks_back` not."""
        if not self.looks_back:
            return logits_BV
        logits_BV = logits_BV.clone()
        for logits_V, text in zip(logits_BV, texts, strict=True):
            ids = torch.tensor(sorted(set(text)), device=logits_V.device)
            held = logits_V[ids]
            logits_V[ids] = torch.where(held > 0, held / self.repetition_penalty, held * self.repetition_penalty)
        return logits_BV

    def choose(self, logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
        """The token ids (B,) that the rows' random numbers, each in [0,1), lead to.

        The candidates are laid end to end, each as long as its probability, and the random number is a place
        on that line. So a row's choice needs one number, and does not depend on the other rows.
        """
        if self.is_greedy:
            return logits_BV.argmax(dim=-1)
        scores_BC, ids_BC = logits_BV.float(), None
        if self.top_k is not None or self.top_p is not None:
            n_vocabulary = logits_BV.shape[-1]
            scores_BC, ids_BC = scores_BC.topk(min(self.top_k or n_vocabulary, n_vocabulary))
        # The best score becomes 0 before the division, which would else carry large scores to infinity.
        below_best_BC = scores_BC - scores_BC.amax(dim=-1, keepdim=True)
        probabilities_BC = (below_best_BC / self.temperature).softmax(dim=-1, dtype=torch.float64)
        if self.top_p is not None:
            better_BC = probabilities_BC.cumsum(dim=-1) - probabilities_BC
            probabilities_BC = probabilities_BC.masked_fill(better_BC >= self.top_p, 0.0)
        if self.min_p is not None:
            best_B1 = probabilities_BC.amax(dim=-1, keepdim=True)
            probabilities_BC = probabilities_BC.masked_fill(probabilities_BC < self.min_p * best_B1, 0.0)
        ends_BC = probabilities_BC.cumsum(dim=-1)
        place_B1 = uniform_B.to(ends_BC)[:, None] * ends_BC[:, -1:]
        chosen_B1 = (ends_BC <= place_B1).sum(dim=-1, keepdim=True)
        return (chosen_B1 if ids_BC is None else ids_BC.gather(1, chosen_B1)).squeeze(1)
