"""Reading recipes: all problems at once, each with its place."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hornbook.errors import UserError
from hornbook.problems import field_names
from hornbook.recipe import EvaluateSection, Recipe, load_recipe, recipe_to_toml
from hornbook.recipe_data import CorpusSection, FilterSection, StoryworldSection
from hornbook.recipe_fields import Section
from hornbook.recipe_training import FinetuneSection, PretrainSection

WriteRecipe = Callable[..., Path]


def problems(path: Path, overrides: dict[str, object] | None = None) -> list[str]:
    with pytest.raises(UserError) as raised:
        load_recipe(path, overrides or {})
    return str(raised.value).splitlines()


def test_what_a_recipe_leaves_out_has_its_default(write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe())
    assert recipe.corpus.source == ("storyworld",)
    assert recipe.finetune is None
    assert recipe.pretrain.tokens == 4096


def test_three_mistakes_are_named_at_once_with_their_places(write_recipe: WriteRecipe) -> None:
    path = write_recipe("[model]\nn_layer = 3\n[pretrain]\ntokens = 'many'\nglobal_batch_tokens = 1024\nlr = -1\n")
    found = problems(path)
    assert len(found) == 3
    assert f"{path}: model.n_layer: is not known; did you mean model.n_layers?" in found
    assert f"{path}: pretrain.lr: must be greater than 0, but is -1" in found
    assert any(line.startswith(f"{path}: pretrain.tokens: must be a whole number") for line in found)


def test_a_check_across_fields_is_reported_beside_a_wrong_field(write_recipe: WriteRecipe) -> None:
    found = problems(
        write_recipe("[model]\nn_heads = 3\n[pretrain]\ntokens = 'x'\nglobal_batch_tokens = 1000\nbeta1 = 1.0\n")
    )
    names = [line.split(": ")[1] for line in found]
    assert names == ["pretrain.tokens", "pretrain.beta1", "model.n_heads", "pretrain.global_batch_tokens"]


def test_a_check_across_fields_is_silent_where_a_field_it_looks_at_is_wrong(
    write_recipe: WriteRecipe,
) -> None:
    found = problems(write_recipe("[pretrain]\ntokens = 4096\nglobal_batch_tokens = -1000\n"))
    assert len(found) == 1
    assert "pretrain.global_batch_tokens: must be greater than 0" in found[0]


@pytest.mark.parametrize(
    ("overrides", "place", "what"),
    [
        ({"model.n_heads": 3}, "--model.n_heads", "must divide d_model"),
        ({"model.n_kv_heads": 3}, "--model.n_kv_heads", "must divide n_heads"),
        ({"model.head_dim": 5}, "--model.head_dim", "must be even for rotary"),
        ({"model.d_model": 36}, "--model.d_model", "must give heads of even width"),
        ({"model.preset": "gpt2", "model.n_kv_heads": 2}, "--model.n_kv_heads", "for the gpt2 preset"),
        ({"pretrain.row_tokens": 512}, "--pretrain.row_tokens", "at most model.max_seq_len, which is 256"),
        ({"pretrain.global_batch_tokens": 1000}, "--pretrain.global_batch_tokens", "try 1024"),
        ({"pretrain.tokens": 5000}, "--pretrain.tokens", "try 5120"),
        ({"pretrain.micro_batch_size": 5}, "--pretrain.micro_batch_size", "at most the 4 rows of a step"),
        ({"pretrain.decay_fraction": 0.99}, "--pretrain.decay_fraction", "come to at most 1"),
        ({"corpus.weights": [1, 2]}, "--corpus.weights", "one number for each of the 1 sources, but has 2"),
        ({"corpus.weights": [0.0]}, "--corpus.weights", "must not all be 0"),
        ({"tokenizer.vocab_size": 200}, "--tokenizer.vocab_size", "must be at least 263"),
        ({"tokenizer.vocab_size": 263, "tokenizer.special_tokens": "<x>"}, "--tokenizer.vocab_size", "264 or more"),
    ],
)
def test_fields_that_do_not_fit_together_are_named(
    write_recipe: WriteRecipe, overrides: dict[str, object], place: str, what: str
) -> None:
    assert any(line.startswith(f"{place}: ") and what in line for line in problems(write_recipe(), overrides))


def test_a_problem_of_a_flag_is_placed_at_the_flag_and_one_of_the_file_in_the_file(
    write_recipe: WriteRecipe,
) -> None:
    path = write_recipe("[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\nclip_norm = 0\n")
    found = problems(path, {"pretrain.schedule": "linear"})
    assert f"{path}: pretrain.clip_norm: must be greater than 0, but is 0" in found
    assert "--pretrain.schedule: must be 'cosine', 'wsd' or 'constant', but is \"linear\"" in found


def test_an_override_replaces_what_the_file_says(write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe(), {"pretrain.lr": 0.5, "corpus.filters.min_words": "off"})
    assert recipe.pretrain.lr == 0.5
    assert recipe.corpus.filters.min_words is None


@pytest.mark.parametrize("word", ["none", "off", ["none"], ["off"]])
def test_a_word_alone_or_in_a_list_stands_for_no_preset_of_filters(write_recipe: WriteRecipe, word: object) -> None:
    assert load_recipe(write_recipe(), {"corpus.filters.preset": word}).corpus.filters.preset == ()


def test_an_override_can_add_a_section(write_recipe: WriteRecipe) -> None:
    overrides = {"finetune.tokens": 2048, "finetune.global_batch_tokens": 1024}
    finetune = load_recipe(write_recipe(), overrides).finetune
    assert finetune is not None
    assert finetune.tokens == 2048


def test_a_known_name_in_the_wrong_section_is_told_where_it_belongs(write_recipe: WriteRecipe) -> None:
    (problem,) = problems(write_recipe(top="max_seq_len = 128"))
    assert problem.endswith("max_seq_len: is not known here; it belongs in model.max_seq_len")


def test_a_hopeless_name_is_answered_with_the_known_ones(write_recipe: WriteRecipe) -> None:
    (problem,) = problems(write_recipe(top="[tokenizer]\nxyzzy = 1"))
    assert problem.endswith(
        "tokenizer.xyzzy: is not known; the section tokenizer has: vocab_size, split_pattern, special_tokens, load_from"
    )


def test_a_missing_section_and_a_section_that_is_none_are_named(write_recipe: WriteRecipe) -> None:
    found = problems(write_recipe("model = 3\n"))
    assert any("model: must be a section of its own, but is 3" in line for line in found)
    assert any("pretrain: is missing" in line for line in found)


@pytest.mark.parametrize(
    ("top", "place"),
    [
        ("[corpus]\nsource = ['storyworld', 3]", "corpus.source.1: must be a text in quotes, but is 3"),
        ("[corpus]\nsource = []", "corpus.source: must not be empty, but is ()"),
        ("[corpus]\ncleaning = 3", "corpus.cleaning: must be a section of its own, but is 3"),
        ('"model.d_model" = 3', "model.d_model: is not known"),
        ("finetune = 3", "finetune: must be a section of its own, but is 3"),
        ("seed = nan", "seed: must be a whole number"),
        ("[pretrain.more]\nlr = 3", "pretrain.more: is not known"),
    ],
)
def test_odd_mistakes_are_told_like_any_other(write_recipe: WriteRecipe, top: str, place: str) -> None:
    rest = "" if "pretrain" in top else "[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\n"
    assert any(line.split(": ", 1)[1].startswith(place) for line in problems(write_recipe(rest, top)))


def test_broken_toml_is_reported_with_its_line(write_recipe: WriteRecipe) -> None:
    (problem,) = problems(write_recipe("[pretrain\n"))
    assert "is not valid TOML" in problem
    assert "line 3" in problem


def test_a_recipe_that_is_not_there_is_a_users_error(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "none.toml")
    assert "none.toml: cannot be read" in problem


def test_values_are_not_guessed_from_other_types(write_recipe: WriteRecipe) -> None:
    for value in ("true", '"1"', "1.0"):
        assert "seed: must be a whole number" in problems(write_recipe(top=f"seed = {value}"))[0]


def test_a_single_text_stands_for_a_list_of_one(write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe(top='[corpus]\nsource = "files:a.txt"'))
    assert recipe.corpus.source == ("files:a.txt",)


def test_every_field_says_what_it_is_for() -> None:
    def undescribed(section: type[Section]) -> list[str]:
        return [name for name, field in section.model_fields.items() if not field.description]

    sections = [Recipe, StoryworldSection, CorpusSection, FilterSection, PretrainSection, FinetuneSection]
    assert [name for section in sections for name in undescribed(section)] == []
    assert len(field_names(Recipe)) > 80


def test_a_recipe_is_read_without_torch() -> None:
    code = "import sys, hornbook.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


fractions = st.floats(0.001, 0.49)
trainings = {
    "tokens": st.just(8192),
    "global_batch_tokens": st.sampled_from([256, 1024]),
    "lr": st.floats(1e-9, 10),
    "micro_batch_size": st.none() | st.just(1),
    "warmup_fraction": fractions,
    "compile": st.booleans(),
}
any_recipe = st.builds(
    Recipe,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True),
    description=st.text(),
    corpus=st.builds(
        CorpusSection,
        source=st.lists(st.text(), min_size=1).map(tuple),
        filters=st.builds(
            FilterSection,
            min_words=st.none() | st.integers(0, 9),
            max_symbol_to_word_ratio=st.none() | st.floats(0, 1e9),
            language=st.sampled_from([None, "en"]),
        ),
    ),
    pretrain=st.builds(PretrainSection, **trainings),
    finetune=st.none() | st.builds(FinetuneSection, validation_fraction=fractions, **trainings),
    evaluate=st.builds(
        EvaluateSection,
        suites=st.sampled_from([(), ("facts",)]),
        sample_prompts=st.lists(st.text()).map(tuple),
    ),
)


@given(recipe=any_recipe)
def test_any_recipe_survives_being_written_and_read(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(recipe_to_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_stretched_positions_are_a_table_with_the_published_values_as_defaults(write_recipe: WriteRecipe) -> None:
    assert load_recipe(write_recipe()).model.rope_scaling is None
    scaling = load_recipe(write_recipe(top="[model]\nrope_scaling.type = 'llama3'\n")).model.rope_scaling
    assert scaling is not None
    assert (scaling.factor, scaling.original_max_seq_len) == (8.0, 8192)
    given = load_recipe(write_recipe(), {"model.rope_scaling.factor": 4.0}).model.rope_scaling
    assert given is not None
    assert given.factor == 4.0


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        ("low_freq_factor = 4.0", "low_freq_factor: must be less than high_freq_factor, which is 4, but is 4"),
        ("beta_slow = 40.0", "beta_slow: must be less than beta_fast, which is 32, but is 40"),
        ("factor = 0.5", "factor: must be at least 1, but is 0.5"),
        ("type = 'linear'", "type: must be 'llama3' or 'yarn', but is \"linear\""),
    ],
)
def test_positions_that_cannot_be_stretched_are_named(field: str, complaint: str, write_recipe: WriteRecipe) -> None:
    (problem,) = problems(write_recipe(top=f"[model.rope_scaling]\n{field}\n"))
    assert problem.endswith(f"model.rope_scaling.{complaint}")


def test_what_a_stage_would_pass_over_in_silence_is_named(write_recipe: WriteRecipe) -> None:
    training = "tokens = 4096\nglobal_batch_tokens = 1024\n"
    sections = f"[pretrain]\n{training}[preference]\n{training}order = 'corpus'\n[reinforce]\n{training}"
    found = problems(
        write_recipe(
            f"{sections}evaluation_rows = 8\nanswers_per_prompt = 4\n"
            f"[classify]\nsource = 'files:a.tsv'\n{training}train_layers = 1\n[classify.lora]\nrank = 4\n"
        )
    )
    assert [line.partition(": ")[2].partition(":")[0] for line in found] == [
        "preference.order",
        "reinforce.evaluation_rows",
        "classify.train_layers",
    ]
