"""An endless order of things to train on that can be taken up again anywhere: the place in it is one number."""

import numpy as np

from hornbook.runtime import numpy_generator


class ShuffledOrder:
    """The numbers below `n_items`, over and over, each pass in an order of its own, drawn from the seed."""

    def __init__(self, n_items: int, seed: int) -> None:
        self._n_items, self._seed = n_items, seed
        self._epoch, self._order = -1, np.arange(0)

    def take(self, start: int, count: int) -> list[int]:
        """The `count` numbers from place `start` on, counted from the beginning of the first pass."""
        return [self._at(place) for place in range(start, start + count)]

    def _at(self, place: int) -> int:
        epoch, within = divmod(place, self._n_items)
        if epoch != self._epoch:
            # Sorting raw draws, as the loader does: a shuffle may change between versions of numpy.
            draws = numpy_generator("order", self._seed, epoch).bit_generator.random_raw(self._n_items)
            self._epoch, self._order = epoch, np.argsort(draws, kind="stable")
        return int(self._order[within])
