"""Validation errors in plain words.

Pydantic finds every problem of a value at once and names its place. Here each becomes one line that a person
can act on: the dotted name, what the value must be, what it is, and for an unknown name the nearest known
one.
"""

import difflib
import types
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, str]]:
    """Each problem as (dotted name, what is wrong with it), in the order of the model's fields."""
    return [(".".join(str(part) for part in detail["loc"]), _describe(detail, model)) for detail in error.errors()]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a person who typed `name` most likely meant, or None."""
    names = list(known)
    matches = difflib.get_close_matches(name, names, n=1) or [known for known in names if known.startswith(name)]
    return matches[0] if matches else None


def field_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted names of all fields, sections included."""
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        section = section_of(field.annotation)
        if section is not None:
            names += field_names(section, f"{prefix}{name}.")
    return names


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model behind a field's type, where the field is a section (which may be optional)."""
    candidates = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _describe(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "extra_forbidden":
        return _unknown([str(part) for part in detail["loc"]], model)
    if kind == "missing":
        return "is missing, and has no default"
    if kind == "value_error":
        return f"{context['error']}, but is {_show(value)}"
    return f"{_requirement(kind, context, detail['msg'])}, but is {_show(value)}"


def _requirement(kind: str, context: dict[str, Any], message: str) -> str:
    comparisons = {
        "greater_than": ("greater than", "gt"),
        "greater_than_equal": ("at least", "ge"),
        "less_than": ("less than", "lt"),
        "less_than_equal": ("at most", "le"),
    }
    names = {
        "int_type": "a whole number, without a point or an exponent",
        "int_from_float": "a whole number, without a point or an exponent",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "string_type": "a text in quotes",
        "tuple_type": "a list",
        "model_type": "a section of its own",
        "model_attributes_type": "a section of its own",
    }
    if kind in comparisons:
        words, key = comparisons[kind]
        return f"must be {words} {context[key]:g}"
    if kind in names:
        return f"must be {names[kind]}"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    if kind == "string_pattern_mismatch":
        return f"must match the pattern {context['pattern']}"
    return message


def _unknown(path: list[str], model: type[BaseModel]) -> str:
    """Say that a name is unknown, and suggest one: first from its own section, then from all of them."""
    section: type[BaseModel] = model
    for part in path[:-1]:
        section = section_of(section.model_fields[part].annotation) or section
    prefix = "".join(f"{part}." for part in path[:-1])
    guess = nearest(path[-1], section.model_fields)
    if guess is not None:
        return f"is not known; did you mean {prefix}{guess}?"
    homes = [name for name in field_names(model) if name.rsplit(".", 1)[-1] == path[-1]]
    if homes:
        return f"is not known here; it belongs in {' or '.join(homes)}"
    where = f"section {prefix[:-1]}" if prefix else "recipe"
    return f"is not known; the {where} has: {', '.join(section.model_fields)}"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
