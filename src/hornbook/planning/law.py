"""A scaling law: the loss that a size and an amount of data lead to, and the curve on the way there.

    L(N, D) = E + A / N^alpha + B / D^beta

(Hoffmann et al. 2022, arXiv 2203.15556, equation 2). E is the entropy of the text, and the two terms are what a model
of N parameters and D tokens misses of it. The law is of finished trainings. On the way, with the learning rate still
high, the loss lies above it by a factor that depends on how much of the training is over, but hardly on the size:
curves of different sizes fall upon each other (Qiu et al. 2025, arXiv 2507.02119). This module imports no torch.
"""

from dataclasses import dataclass

from hornbook.planning.curves import N_WINDOWS


@dataclass(frozen=True)
class Law:
    """The five numbers of the law; losses in nats per token.

    above: for each window of a training the factor by which its mean loss lies above the law; empty where unknown.
    """

    e: float
    a: float
    b: float
    alpha: float
    beta: float
    above: tuple[float, ...] = ()

    def loss(self, parameters: float, tokens: float) -> float:
        """The loss of a finished training of that size on so many tokens."""
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def losses(self, parameters: float, tokens: float) -> list[float]:
        """The loss in the middle of each window of such a training, by the law alone."""
        return [self.loss(parameters, tokens * (number + 0.5) / N_WINDOWS) for number in range(N_WINDOWS)]

    def curve(self, parameters: float, tokens: float) -> list[float] | None:
        """The mean loss that each window of such a training will have; None where `above` is not known."""
        if not self.above:
            return None
        return [loss * factor for loss, factor in zip(self.losses(parameters, tokens), self.above, strict=True)]

    def best_split(self, flops: float) -> tuple[float, float]:
        """The parameters and tokens that reach the lowest loss with 6 N D operations (equation 4 there)."""
        gain = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = gain * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / 6 / parameters
