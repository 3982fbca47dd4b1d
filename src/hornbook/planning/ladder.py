"""A ladder of small trainings like a recipe's: sizes and amounts of data whose law tells of larger ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hornbook.errors import UserError
from hornbook.model.config import ModelConfig, config_from_recipe
from hornbook.planning.flops import flops_per_token, matrix_parameters
from hornbook.planning.units import quantity
from hornbook.recipe import Recipe
from hornbook.recipe_data import ModelSection

BUDGETS = (1 / 4, 1.0)
"""The operations of the ladder's runs, over those of the dearest: two amounts of data for each size."""
HELD_OUT = 4.0
_TOKENS_PER_PARAMETER = 20
_WIDTH_STEP = 16
_WIDEST = 8192
_SIZES_APART = 16.0
"""The largest size of a ladder over its smallest: around the best, both sides of the valley are wanted."""


@dataclass(frozen=True)
class Rung:
    """One training of the ladder. parameters: those that tokens are multiplied with; they are what a law counts."""

    model: ModelSection
    parameters: int
    tokens: int
    flops: float


def ladder(recipe: Recipe, n_sizes: int, flops: float) -> list[Rung]:
    """The runs of `n_sizes` sizes at two budgets each, the dearer of `flops` operations; the cheapest first.

    Raises UserError where the largest size is beyond the widest model.
    """
    best = math.sqrt(flops / (6 * _TOKENS_PER_PARAMETER))
    largest = best * math.sqrt(_SIZES_APART)
    widest = config_from_recipe(_model_of_width(recipe.model, _WIDEST), recipe.tokenizer.vocab_size)
    if largest > counted_parameters(widest):
        raise UserError(
            f"flops: {flops:.1e} operations ask for a ladder up to {quantity(largest)} parameters, and its widest "
            f"model has {quantity(counted_parameters(widest))}. Give fewer operations."
        )
    rungs = []
    for budget in BUDGETS:
        for number in range(n_sizes):
            apart = _SIZES_APART ** (number / max(1, n_sizes - 1) - 0.5)
            rungs.append(rung(recipe, best * math.sqrt(budget) * apart, budget * flops))
    return sorted({(one.parameters, one.tokens): one for one in rungs}.values(), key=lambda one: one.flops)


def rung(recipe: Recipe, parameters: float, flops: float) -> Rung:
    """A model of about so many parameters, and the tokens that so many operations train it on."""
    section = recipe.pretrain
    if section is None:
        raise ValueError("a ladder needs pretraining")
    models = [_model_of_width(recipe.model, width) for width in range(_WIDTH_STEP, _WIDEST + 1, _WIDTH_STEP)]
    configs = [config_from_recipe(model, recipe.tokenizer.vocab_size) for model in models]
    place = min(range(len(models)), key=lambda place: abs(math.log(counted_parameters(configs[place]) / parameters)))
    row_tokens = section.row_tokens or recipe.model.max_seq_len
    per_token = flops_per_token(configs[place], row_tokens).model
    steps = max(1, round(flops / per_token / section.global_batch_tokens))
    tokens = steps * section.global_batch_tokens
    return Rung(models[place], counted_parameters(configs[place]), tokens, float(tokens * per_token))


def counted_parameters(config: ModelConfig) -> int:
    """The parameters that a law counts: the layers' matrices and the head, but not the embedding that is looked up."""
    return matrix_parameters(config) + config.vocab_size * config.d_model


def rung_recipe(recipe: Recipe, one: Rung, name: str) -> Recipe:
    """The recipe of one rung: the same data and training, with its own size and tokens."""
    assert recipe.pretrain is not None
    section = recipe.pretrain.model_copy(update={"tokens": one.tokens})
    return recipe.model_copy(update={"name": name, "model": one.model, "pretrain": section})


def budget_of(rungs: Sequence[Rung]) -> float:
    """The operations of all of them."""
    return sum(one.flops for one in rungs)


def _model_of_width(model: ModelSection, width: int) -> ModelSection:
    """The recipe's kind of model in another width, deeper as it is wider, with heads of 16 to 128 numbers."""
    head_dim = max(16, min(128, 2 ** round(math.log2(max(1, width / 4)))))
    while width % head_dim:
        head_dim //= 2
    changes = {
        "depth": None,
        "d_model": width,
        "n_layers": max(2, round(width / 48)),
        "n_heads": width // head_dim,
        "n_kv_heads": None,
        "head_dim": None,
        "d_ff": None,
    }
    return model.model_copy(update=changes)
