"""A scaling law: the loss that a size and an amount of data lead to, and the curve on the way there.

    L(N, D) = E + A / N^alpha + B / D^beta

(Hoffmann et al. 2022, arXiv 2203.15556, equation 2). E is the entropy of the text, and the two terms are what a model
of N parameters and D tokens misses of it. The law is of finished trainings, whose learning rate has fallen to its end.
While it is high, the loss after so many tokens does not depend on how many more will come, and follows a law of its
own, further up; as the rate falls, the loss passes from the one law to the other. This module imports no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hornbook.planning.curves import N_WINDOWS


@dataclass(frozen=True)
class Law:
    """The five numbers of a law; losses in nats per token.

    approach: how a training comes down to it; None where unknown.
    """

    e: float
    a: float
    b: float
    alpha: float
    beta: float
    approach: "Approach | None" = None

    def loss(self, parameters: float, tokens: float) -> float:
        """The loss of a finished training of that size on so many tokens."""
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def losses(self, parameters: float, tokens: float) -> list[float]:
        """The loss that the law gives in the middle of each window of a training, for the tokens seen so far."""
        return [self.loss(parameters, tokens * (number + 0.5) / N_WINDOWS) for number in range(N_WINDOWS)]

    def curve(self, parameters: float, tokens: float) -> list[float] | None:
        """The mean loss that each window of such a training will have; None where `approach` is not known."""
        if self.approach is None:
            return None
        how = self.approach
        way = self.way(parameters, tokens)
        steps = zip(how.under_way.losses(parameters, tokens), how.above, how.passed, strict=True)
        return [loss * math.exp(above + passed * way) for loss, above, passed in steps]

    def way(self, parameters: float, tokens: float) -> float:
        """The logarithm of this law's loss over that of a training whose learning rate would still be high."""
        assert self.approach is not None
        return math.log(self.loss(parameters, tokens) / self.approach.under_way.loss(parameters, tokens))

    def best_split(self, flops: float) -> tuple[float, float]:
        """The parameters and tokens that reach the lowest loss with 6 N D operations (equation 4 there)."""
        gain = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = gain * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / 6 / parameters


@dataclass(frozen=True)
class Approach:
    """How a training comes down to the law, window by window.

    under_way: the law of the loss after so many tokens while the learning rate is high. above: the logarithm of the
    factor by which the loss lies above that; 0 but in the first windows, in which the rate rises. passed: the share of
    the way from that law to the one of finished trainings, in logarithms, that is behind.
    """

    under_way: Law
    above: Sequence[float]
    passed: Sequence[float]
