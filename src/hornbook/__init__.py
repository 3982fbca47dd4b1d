"""Hornbook: one recipe in, one language model out, trained from raw text on hardware you own."""

__version__ = "0.1.0"
