"""All worked examples by name, as the chapters ask for them."""

from typing import Any

from hornbook.book.worked import answers, costs, network, text, training


def all_examples() -> dict[str, Any]:
    """Every worked example by name, as plain numbers."""
    return {
        "bigram": text.bigram(),
        "bpe": text.byte_pairs(),
        "softmax": network.softmax_example(),
        "attention": network.attention(),
        "rotation": network.rotation(),
        "norms": network.norms(),
        "activations": network.activations(),
        "loss": training.cross_entropy(),
        "micro_batches": training.micro_batches(),
        "backpropagation": training.backpropagation(),
        "packed": training.packed_row(),
        "adamw": training.adamw(),
        "newton_schulz": training.newton_schulz(),
        "numbers": training.number_formats(),
        "budget": {name: costs.budget(name) for name in costs.SIZES},
        "lora": answers.lora(),
        "dpo": answers.dpo(),
        "grpo": answers.group_advantages(),
        "sampling": answers.sampling(),
        "scaling": costs.scaling(),
        "standard_error": answers.standard_error(),
        "cache": costs.cache_bytes(),
        "split": network.split_feed_forward(),
        "devices": costs.devices(),
        "power_law": costs.power_law(),
        "means": costs.means(),
    }
