"""A scaling law: the loss that a size and an amount of data lead to, and the curve on the way there.

    L(N, D) = E + A / N^alpha + B / D^beta

(Hoffmann et al. 2022, arXiv 2203.15556, equation 2). E is the entropy of the text, and the two terms are what a model
of N parameters and D tokens misses of it. The law is of finished trainings. On the way, with the learning rate still
high, the loss lies above it by a factor that depends on how much of the training is over, on the size and on the amount
of data. That curves of different sizes fall upon each other (Qiu et al. 2025, arXiv 2507.02119) holds for trainings
with as many tokens for each parameter; a ladder's have from less than one to a hundred. This module imports no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hornbook.planning.curves import N_WINDOWS


@dataclass(frozen=True)
class Approach:
    """By what factor the loss lies above the law in each window of a training.

    windows: c, n and d of each, where the logarithm of the factor is c + n log N + d log D. parameters, tokens: the
    smallest and the largest that this was measured with; beyond them the factor of the nearest is taken.
    """

    windows: Sequence[Sequence[float]]
    parameters: Sequence[float]
    tokens: Sequence[float]

    def factors(self, parameters: float, tokens: float) -> list[float]:
        """The factor of each window."""
        log_n = math.log(min(max(parameters, self.parameters[0]), self.parameters[1]))
        log_d = math.log(min(max(tokens, self.tokens[0]), self.tokens[1]))
        return [math.exp(c + n * log_n + d * log_d) for c, n, d in self.windows]


@dataclass(frozen=True)
class Law:
    """The five numbers of the law; losses in nats per token.

    above: how a training comes down to it; None where unknown.
    """

    e: float
    a: float
    b: float
    alpha: float
    beta: float
    above: Approach | None = None

    def loss(self, parameters: float, tokens: float) -> float:
        """The loss of a finished training of that size on so many tokens."""
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def losses(self, parameters: float, tokens: float) -> list[float]:
        """The loss in the middle of each window of such a training, by the law alone."""
        return [self.loss(parameters, tokens * (number + 0.5) / N_WINDOWS) for number in range(N_WINDOWS)]

    def curve(self, parameters: float, tokens: float) -> list[float] | None:
        """The mean loss that each window of such a training will have; None where `above` is not known."""
        if self.above is None:
            return None
        factors = self.above.factors(parameters, tokens)
        return [loss * factor for loss, factor in zip(self.losses(parameters, tokens), factors, strict=True)]

    def best_split(self, flops: float) -> tuple[float, float]:
        """The parameters and tokens that reach the lowest loss with 6 N D operations (equation 4 there)."""
        gain = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = gain * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / 6 / parameters
