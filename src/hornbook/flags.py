"""Any field of a recipe as a dotted flag: `--pretrain.lr 3e-3`.

The flags are made from the recipe's own types, with the recipe's own values as defaults, so the help of a
recipe describes that recipe. Tyro reads the command line, writes the help and suggests the flag one meant. It
does not judge values: those go to `load_recipe`, which reports problems of the file and of the flags
together.
"""

import dataclasses
import tomllib
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hornbook.problems import section_of
from hornbook.recipe import Recipe
from hornbook.recipe_fields import SWITCHED_OFF

Options = TypeVar("Options")

_METAVARS = {bool: "{true,false}", int: "INT", float: "NUMBER", str: "TEXT"}


def with_recipe_flags(options: type[Options], recipe: Recipe) -> type[Options]:
    """A command's own dataclass of options, with a field for each field of the recipe added."""
    return dataclasses.make_dataclass(options.__name__, _fields(Recipe, recipe), bases=(options,))


def given_flags(parsed: object) -> dict[str, Any]:
    """The recipe's fields that stand on the command line: {"pretrain.lr": 0.003}."""
    return _given(parsed, Recipe, "")


@dataclasses.dataclass(frozen=True, eq=False)
class _AsInRecipe:
    """Stands for a field that the command line does not name. A name that gives the recipe's own value is not that:

    it holds against what else would change the field, such as a depth.
    """

    value: Any


def _fields(model: type[BaseModel], values: BaseModel | None) -> list[tuple[str, Any, Any]]:
    """The model's fields for `make_dataclass`; a section becomes a dataclass of its own."""
    fields: list[tuple[str, Any, Any]] = []
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        default = _default(name, field, values)
        if section is None:
            fields.append((name, _flag_type(field), dataclasses.field(default=_AsInRecipe(default))))
        else:
            inner = dataclasses.make_dataclass(section.__name__, _fields(section, default))
            inner.__doc__ = section.__doc__
            fields.append((name, inner, dataclasses.field(default_factory=inner)))
    return fields


def _default(name: str, field: FieldInfo, values: BaseModel | None) -> Any:
    """The recipe's value. In a section the recipe lacks, the section's default, or None where it has none."""
    if values is not None:
        return getattr(values, name)
    return None if field.is_required() else field.default


def _given(parsed: object, model: type[BaseModel], prefix: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        value, section = getattr(parsed, name), section_of(field.annotation)
        if section is not None:
            given |= _given(value, section, f"{prefix}{name}.")
        elif not isinstance(value, _AsInRecipe):
            given[prefix + name] = value
    return given


def _flag_type(field: FieldInfo) -> Any:
    """A type that makes tyro take any value as it is typed, and show it as a recipe spells it."""
    annotation = field.annotation
    takes_many = get_origin(annotation) is tuple
    spec: tyro.constructors.PrimitiveConstructorSpec[Any] = tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if takes_many else 1,
        metavar=_metavar(annotation),
        instance_from_str=lambda words: (
            tuple(_value(word, get_args(annotation)[0]) for word in words)
            if takes_many
            else _value(words[0], annotation)
        ),
        is_instance=lambda _: True,
        str_from_instance=lambda shown: list(map(str, shown.value)) if takes_many else [_word(shown.value, field)],
    )
    return Annotated[Any, spec, tyro.conf.arg(help=field.description)]


def _value(word: str, annotation: Any) -> Any:
    """The word as TOML would read it; as it stands where a text is wanted, or where TOML cannot read it."""
    if annotation is str or get_origin(annotation) is Literal:
        return word
    try:
        return tomllib.loads(f"value = {word}")["value"]
    except tomllib.TOMLDecodeError:
        return word


def _word(value: Any, field: FieldInfo) -> str:
    if value is None:
        return SWITCHED_OFF if not field.is_required() and field.default is not None else "unset"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metavar(annotation: Any) -> str:
    """What stands for the value in the help, the alternatives to None included."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "{" + ",".join(str(choice) for choice in arguments) + "}"
    if origin is tuple:
        return f"[{_metavar(arguments[0])} ...]"
    return _METAVARS.get(annotation) or _metavar(arguments[0])
