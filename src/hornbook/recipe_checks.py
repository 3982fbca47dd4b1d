"""What has to fit together in a recipe, beyond what each field must be by itself."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hornbook.recipe import Recipe
    from hornbook.recipe_data import CorpusSection, ModelSection
    from hornbook.recipe_training import TrainingSection


def problems_across_fields(recipe: "Recipe") -> Iterator[tuple[list[str], str]]:
    """Problems between fields, each as (all the fields looked at, what is wrong with the first)."""
    yield from _corpus_problems(recipe.corpus)
    yield from _tokenizer_problems(recipe)
    yield from _model_problems(recipe.model)
    yield from _origin_problems(recipe)
    for name, section in recipe.training_sections.items():
        yield from _training_problems(name, section, recipe)
    yield from _answer_problems(recipe)
    yield from _without_effect(recipe)


def _origin_problems(recipe: "Recipe") -> Iterator[tuple[list[str], str]]:
    """Where the model comes from: the recipe's own shape, or a folder; never both."""
    origin, sections = recipe.origin, recipe.training_sections
    first = next(iter(sections), "pretrain")
    if first not in sections or (first != "pretrain" and sections[first].init_from is None):
        yield ["pretrain"], "is missing, and has no default"
    for name, section in sections.items():
        if name != first and section.init_from is not None:
            yield [f"{name}.init_from", first], f"starts from another model than {first} makes: leave out one"
    if "classify" in sections and first in ("preference", "reinforce"):
        yield ["classify", first], f"starts from what pretrain or finetune makes, and here {first} comes first"
    origin_fields = [f"{name}.init_from" for name in sections]
    own_tokenizer = recipe.tokenizer.model_copy(update={"special_tokens": ()})
    for name, part in (("model", recipe.model), ("tokenizer", own_tokenizer)):
        if origin is not None and part != type(part)():
            yield [name, *origin_fields], f"must be left out: {origin} has its own"
    for name, training in sections.items():
        if origin is not None and training.row_tokens is None:
            yield (
                [f"{name}.row_tokens", *origin_fields],
                f"must be given, since only {origin} knows how long its texts may be",
            )


def _corpus_problems(corpus: "CorpusSection") -> Iterator[tuple[list[str], str]]:
    n_weights, n_sources = len(corpus.weights), len(corpus.source)
    if n_weights not in (0, n_sources):
        yield (
            ["corpus.weights", "corpus.source"],
            f"must have one number for each of the {n_sources} sources, but has {n_weights}",
        )
    elif n_weights and not any(corpus.weights):
        yield ["corpus.weights", "corpus.source"], "must not all be 0: nothing would be left"


def _tokenizer_problems(recipe: "Recipe") -> Iterator[tuple[list[str], str]]:
    tokenizer = recipe.tokenizer
    if tokenizer.load_from is not None or recipe.origin is not None:
        return
    if tokenizer.vocab_size < tokenizer.least_vocab_size:
        yield (
            ["tokenizer.vocab_size", "tokenizer.special_tokens"],
            f"must be {tokenizer.least_vocab_size} or more, with {len(set(tokenizer.special_tokens))} special tokens "
            f"of the recipe's own, but is {tokenizer.vocab_size}",
        )


def _model_problems(model: "ModelSection") -> Iterator[tuple[list[str], str]]:
    heads, width = model.n_heads, model.d_model
    if model.head_dim is None and width % heads:
        yield (
            ["model.n_heads", "model.d_model", "model.head_dim"],
            f"must divide d_model, which is {width}, or head_dim must be set, but is {heads}",
        )
    if model.n_kv_heads is not None and heads % model.n_kv_heads:
        yield (
            ["model.n_kv_heads", "model.n_heads"],
            f"must divide n_heads, which is {heads}, but is {model.n_kv_heads}",
        )
    scaling = model.rope_scaling
    if scaling is not None:
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if getattr(scaling, low) >= getattr(scaling, high):
                yield (
                    [f"model.rope_scaling.{low}", f"model.rope_scaling.{high}"],
                    f"must be less than {high}, which is {getattr(scaling, high):g}, but is {getattr(scaling, low):g}",
                )
    if model.preset == "gpt2":
        if model.n_kv_heads not in (None, heads):
            yield (
                ["model.n_kv_heads", "model.n_heads", "model.preset"],
                f"must be n_heads, which is {heads}, for the gpt2 preset, but is {model.n_kv_heads}",
            )
        if model.head_dim not in (None, width // heads):
            yield (
                ["model.head_dim", "model.d_model", "model.n_heads", "model.preset"],
                f"must be d_model / n_heads for the gpt2 preset, but is {model.head_dim}",
            )
    elif model.head_dim is not None and model.head_dim % 2:
        yield (
            ["model.head_dim", "model.preset"],
            f"must be even for rotary positions, but is {model.head_dim}",
        )
    elif model.head_dim is None and width % heads == 0 and (width // heads) % 2:
        yield (
            ["model.d_model", "model.n_heads", "model.head_dim", "model.preset"],
            f"must give heads of even width for rotary positions, but {width} / {heads} is {width // heads}",
        )


def _training_problems(name: str, section: "TrainingSection", recipe: "Recipe") -> Iterator[tuple[list[str], str]]:
    model = recipe.model
    row_tokens = section.row_tokens or model.max_seq_len
    batch_tokens, tokens = section.global_batch_tokens, section.tokens
    row_fields = [f"{name}.row_tokens", "model.max_seq_len"]
    batch_field = f"{name}.global_batch_tokens"
    if recipe.origin is None and row_tokens > model.max_seq_len:
        yield (
            row_fields,
            f"must be at most model.max_seq_len, which is {model.max_seq_len}, but is {row_tokens}",
        )
    if batch_tokens % row_tokens:
        yield (
            [batch_field, *row_fields],
            f"must be a multiple of the row, which has {row_tokens} tokens, but is {batch_tokens}; "
            f"try {_nearest_multiple(batch_tokens, row_tokens)}",
        )
    elif section.micro_batch_size is not None and section.micro_batch_size > batch_tokens // row_tokens:
        yield (
            [f"{name}.micro_batch_size", batch_field, *row_fields],
            f"must be at most the {batch_tokens // row_tokens} rows of a step, but is {section.micro_batch_size}",
        )
    if tokens % batch_tokens:
        yield (
            [f"{name}.tokens", batch_field],
            f"must be a multiple of global_batch_tokens, which is {batch_tokens}, but is {tokens}; "
            f"try {_nearest_multiple(tokens, batch_tokens)}",
        )
    if section.schedule == "wsd" and section.warmup_fraction + section.decay_fraction > 1:
        yield (
            [f"{name}.decay_fraction", f"{name}.warmup_fraction", f"{name}.schedule"],
            f"and warmup_fraction must come to at most 1, but come to "
            f"{section.warmup_fraction + section.decay_fraction:g}",
        )


def _without_effect(recipe: "Recipe") -> Iterator[tuple[list[str], str]]:
    """What a stage would pass over in silence."""
    sections = recipe.training_sections
    for name in ("preference", "reinforce", "classify"):
        if name in sections and sections[name].order == "corpus":
            yield [f"{name}.order"], 'must be "shuffled": this stage draws its rows by chance'
    reinforce = recipe.reinforce
    if reinforce is not None and reinforce.evaluation_rows != type(reinforce).model_fields["evaluation_rows"].default:
        yield ["reinforce.evaluation_rows"], "has no effect here: validation_prompts says how many are asked"
    classify = recipe.classify
    if classify is not None and classify.lora is not None and classify.train_layers is not None:
        yield ["classify.train_layers", "classify.lora"], "has no effect beside adapters, which go into every layer"


def _answer_problems(recipe: "Recipe") -> Iterator[tuple[list[str], str]]:
    """Stages whose rows are answers that belong together: pairs, or the group of a prompt."""
    finetune = recipe.finetune
    if finetune is not None and len(finetune.weights) not in (0, len(finetune.source)):
        yield (
            ["finetune.weights", "finetune.source"],
            f"must have one number for each of the {len(finetune.source)} sources, but has {len(finetune.weights)}",
        )
    group_sizes = {"preference": 2}
    if recipe.reinforce is not None:
        group_sizes["reinforce"] = recipe.reinforce.answers_per_prompt
    for name, group_size in group_sizes.items():
        section = recipe.training_sections.get(name)
        if section is None:
            continue
        row_tokens = section.row_tokens or recipe.model.max_seq_len
        if section.global_batch_tokens % row_tokens == 0 and (section.global_batch_tokens // row_tokens) % group_size:
            yield (
                [f"{name}.global_batch_tokens", f"{name}.row_tokens", "model.max_seq_len"],
                f"must be a multiple of {group_size} rows of {row_tokens} tokens, which belong together, "
                f"but is {section.global_batch_tokens}; "
                f"try {_nearest_multiple(section.global_batch_tokens, group_size * row_tokens)}",
            )
    reinforce = recipe.reinforce
    if reinforce is not None and reinforce.row_tokens is not None and reinforce.answer_tokens >= reinforce.row_tokens:
        yield (
            ["reinforce.answer_tokens", "reinforce.row_tokens"],
            f"must leave room for the prompt in a row of {reinforce.row_tokens}, but is {reinforce.answer_tokens}",
        )


def _nearest_multiple(value: int, unit: int) -> int:
    return max(1, round(value / unit)) * unit
