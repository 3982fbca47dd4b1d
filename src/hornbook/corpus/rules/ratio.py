"""Ratios of counts."""

import numpy


def ratio(part: numpy.ndarray, whole: numpy.ndarray) -> numpy.ndarray:
    """part / whole, and 0 where the whole is 0."""
    return numpy.divide(part, whole, out=numpy.zeros(len(whole)), where=whole != 0)
