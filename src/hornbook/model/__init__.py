"""The language model: one Transformer made of small parts, and its way to and from Hugging Face's layout.

Import the parts by their modules: `config` needs no torch, so that a plan can be made without it.
"""
