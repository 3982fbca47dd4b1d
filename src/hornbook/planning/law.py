"""A scaling law: the loss that a size and an amount of data lead to.

    L(N, D) = E + A / N^alpha + B / D^beta

(Hoffmann et al. 2022, arXiv 2203.15556, equation 2). E is the entropy of the text, and the two terms are what a model
of N parameters and D tokens misses of it. This module imports no torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Law:
    """The five numbers of the law; losses in nats per token."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """The loss of a finished training of that size on so many tokens."""
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def best_split(self, flops: float) -> tuple[float, float]:
        """The parameters and tokens that reach the lowest loss with 6 N D operations (equation 4 there)."""
        gain = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = gain * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / 6 / parameters
