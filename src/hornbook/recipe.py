"""The recipe: one typed description of a whole experiment, from raw text to exported model.

A recipe is a TOML file with one table for each section below. Every field has a default or must be given, and
says what it is for; the command line shows these sentences, and takes any field as a dotted flag. All
problems of a recipe are reported together, each with its place. No torch here: reading a recipe takes no
time.
"""

import copy
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from hornbook.depth import with_depth
from hornbook.errors import UserError
from hornbook.problems import problems_of
from hornbook.recipe_checks import problems_across_fields
from hornbook.recipe_data import (
    CorpusSection,
    ModelSection,
    StoryworldSection,
    TokenizerSection,
)
from hornbook.recipe_fields import (
    SWITCHED_OFF,
    Section,
    Suites,
    Texts,
)
from hornbook.recipe_parallel import ParallelSection, recipe_problems
from hornbook.recipe_training import (
    ClassifySection,
    FinetuneSection,
    PreferenceSection,
    PretrainSection,
    ReinforceSection,
)
from hornbook.toml_text import to_toml


class EvaluateSection(Section):
    """What is asked of the model, before and after fine-tuning."""

    suites: Suites = Field(
        ("comprehension", "reasoning", "facts"), description="Suites of the storyworld's questions to ask."
    )
    questions_per_suite: int = Field(200, gt=0, description="Questions of each suite.")
    benchmarks: Texts = Field((), description="Published benchmarks to ask, such as hellaswag, from benchmark_data.")
    benchmark_data: str = Field("benchmarks-data", description="The folder of the benchmarks' files.")
    benchmark_items: int = Field(500, gt=0, description="Items of each benchmark, taken evenly from its file.")
    sample_prompts: Texts = Field(("Once upon a time",), description="Beginnings for the model to continue.")
    sample_tokens: int = Field(160, gt=0, description="Tokens of each continuation, at most.")
    sample_temperature: float = Field(0.8, ge=0, description="0 takes the likeliest token, 1 draws as predicted.")


class ExportSection(Section):
    """The form in which the model leaves."""

    format: Literal["hf", "gguf"] = Field(
        "hf", description="hf: the layout that Hugging Face's transformers loads. gguf: one file for llama.cpp."
    )


TRAINING_STAGES = ("pretrain", "finetune", "preference", "reinforce", "classify")
TrainedSection = PretrainSection | FinetuneSection | PreferenceSection | ReinforceSection | ClassifySection


class Recipe(Section):
    """A whole experiment."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the run's folder: letters, digits, . _ and -.",
    )
    description: str = Field("", description="What this recipe is for, in a sentence.")
    seed: int = Field(1, ge=0, description="Seed of everything random but the storyworld.")
    storyworld: StoryworldSection = Field(StoryworldSection(), description="The embedded world.")
    corpus: CorpusSection = Field(CorpusSection(), description="Where the text comes from.")
    tokenizer: TokenizerSection = Field(TokenizerSection(), description="How text is cut into tokens.")
    model: ModelSection = Field(ModelSection(), description="The shape of the model.")
    pretrain: PretrainSection | None = Field(
        None, description="Training on the corpus; left out only where a later init_from names a model."
    )
    finetune: FinetuneSection | None = Field(None, description="Training on conversations; may be left out.")
    preference: PreferenceSection | None = Field(None, description="Training on pairs of answers; may be left out.")
    reinforce: ReinforceSection | None = Field(None, description="Training on rewards; may be left out.")
    classify: ClassifySection | None = Field(None, description="Training a classifier; may be left out.")
    parallel: ParallelSection = Field(ParallelSection(), description="How a training is spread over processes.")
    evaluate: EvaluateSection = Field(EvaluateSection(), description="What is asked of the model.")
    export: ExportSection = Field(ExportSection(), description="The form in which the model leaves.")

    @property
    def origin(self) -> str | None:
        """The folder of the model that training goes on from, or None where it begins with a new one."""
        return next((section.init_from for section in self.training_sections.values() if section.init_from), None)

    @property
    def training_sections(self) -> "dict[str, TrainedSection]":
        """The sections of the training stages that this recipe has, by name, in the order of the stages."""
        sections = {name: getattr(self, name) for name in TRAINING_STAGES}
        return {name: section for name, section in sections.items() if section is not None}


def load_recipe(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe, with some fields set to other values: {"pretrain.lr": 3e-3}.

    Raises UserError with one line for each problem of the file and of the overrides, all of them at once.
    """
    overrides = overrides or {}
    table = _read_toml(Path(path))
    for name, value in overrides.items():
        _set(table, name, value)
    recipe, problems = _validate(table)
    if problems:
        flags = {name for name, _ in problems if any(f"{name}.".startswith(f"{flag}.") for flag in overrides)}
        lines = [f"{f'--{name}' if name in flags else f'{path}: {name}'}: {what}" for name, what in problems]
        raise UserError("\n".join(lines))
    return recipe


def recipe_to_toml(recipe: Recipe) -> str:
    """The recipe with every field spelled out; `load_recipe` gives it back as it was."""
    return to_toml(_spelled_out(recipe))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}). Give the path of a recipe.") from None
    except ValueError as problem:
        raise UserError(f"{path}: is not valid TOML: {problem}") from None


def _set(table: dict[str, Any], name: str, value: Any) -> None:
    *sections, field = name.split(".")
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):  # the file's own mistake, reported by the validation
            return
        table = inner
    table[field] = value


def _validate(table: dict[str, Any]) -> tuple[Recipe, list[tuple[str, str]]]:
    """The recipe, and every problem as (dotted name, what is wrong).

    Where some fields are wrong, the checks across fields still run, on a copy with stand-ins for the wrong
    ones. A check is reported only if all the fields it looks at were right.
    """
    problems: list[tuple[str, str]] = []
    table = with_depth(table, TokenizerSection().vocab_size)
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        problems = problems_of(error, Recipe)
        recipe = Recipe.model_validate(_with_stand_ins(table, [detail["loc"] for detail in error.errors()]))
    for names, what in (*problems_across_fields(recipe), *recipe_problems(recipe)):
        if not any(f"{name}.".startswith(f"{wrong}.") for name in names for wrong, _ in problems):
            problems.append((names[0], what))
    return recipe, problems


def _with_stand_ins(table: dict[str, Any], wrong_places: list[tuple[Any, ...]]) -> dict[str, Any]:
    """A copy of a table that validates: without the wrong fields, and with all that have no default."""
    mended = copy.deepcopy(table)
    for place in wrong_places:
        inner = mended
        for part in place[:-1]:
            if isinstance(inner.get(part), dict):
                inner = inner[part]
            else:  # an entry of a list: the whole list goes
                inner.pop(part, None)
        inner.pop(place[-1], None)
    needed = {"tokens": 1, "global_batch_tokens": 1}
    for name in TRAINING_STAGES:
        if name in mended:
            mended[name] = needed | ({"source": ("files:",)} if name == "classify" else {}) | mended[name]
    return {"name": "stand-in"} | mended


def _spelled_out(section: Section) -> dict[str, Any]:
    """The section as a table, with None spelled as the word for it wherever None is not the default."""
    table: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            table[name] = _spelled_out(value)
        elif value is None and field.default is not None:
            table[name] = SWITCHED_OFF
        else:
            table[name] = value
    return table
