"""The rotary positions' part of `config.json`: base and stretching, under transformers 5's names and older ones.

transformers 5 keeps all of it in `rope_parameters`. Before, the base stood by itself as `rope_theta`, and the
stretching in `rope_scaling`, which still wins where a file has both. Written are both forms.
"""

from typing import Any

from pydantic import ValidationError

from hornbook.model.config import ModelConfig
from hornbook.recipe_data import RopeScalingSection

Json = dict[str, Any]

_ORIGINAL = "original_max_position_embeddings"
_FIELDS = {
    "default": (),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_fast", "beta_slow", "attention_factor"),
}
"""The types that can be read, and the settings of each that have the same name here, beside factor and length."""

_KNOWN_SETTINGS: dict[str, tuple[Any, ...]] = {
    "partial_rotary_factor": (None, 1.0),
    "truncate": (None, True),
    "mscale": (None, 0),
    "mscale_all_dim": (None, 0),
}
"""Settings that must have one of these values where they are there at all."""


def rope_to_json(config: ModelConfig) -> Json:
    """The settings of `config.json` that say how positions are turned."""
    scaling = config.rope_scaling
    if scaling is None:
        parameters: Json = {"rope_type": "default"}
    else:
        parameters = {"rope_type": scaling.type, "factor": scaling.factor, _ORIGINAL: scaling.original_max_seq_len}
        values = {name: getattr(scaling, name) for name in _FIELDS[scaling.type]}
        parameters |= {name: value for name, value in values.items() if value is not None}
    older = {"rope_theta": config.rope_theta} | ({} if scaling is None else {"rope_scaling": parameters})
    return {"rope_parameters": parameters | {"rope_theta": config.rope_theta}, **older}


def rope_theta(settings: Json) -> float:
    """The base of the wavelengths."""
    return float(_rope(settings).get("rope_theta") or settings.get("rope_theta") or 10_000.0)


def rope_from_json(settings: Json) -> RopeScalingSection | None:
    """How positions are stretched. Only for settings in which `rope_problems` finds none."""
    rope = _rope(settings)
    kind = _type(rope)
    if kind == "default":
        return None
    # transformers takes what stands outside first, and the model's own length where neither is there.
    length = settings.get(_ORIGINAL) or rope.get(_ORIGINAL) or settings["max_position_embeddings"]
    values = {name: rope[name] for name in ("factor", *_FIELDS[kind]) if rope.get(name) is not None}
    return RopeScalingSection.model_validate({"type": kind, "original_max_seq_len": length} | values)


def rope_problems(settings: Json) -> list[str]:
    """What of the rotary positions cannot be computed here."""
    rope = _rope(settings)
    kind = _type(rope)
    if kind not in _FIELDS or any(isinstance(value, dict) for value in rope.values()):
        known = ", ".join(_FIELDS)
        return [f"the rotary positions are {rope}; only one of the types {known}, the same for all layers, can be read"]
    problems = [
        f"{name} of the rotary positions is {value}, which cannot be read here"
        for name, known in _KNOWN_SETTINGS.items()
        for value in (rope.get(name), settings.get(name))
        if value not in known
    ]
    needed = {"llama3": ("factor", *_FIELDS["llama3"]), "yarn": ("factor",), "default": ()}[kind]
    problems += [f"{name} of the rotary positions is missing" for name in needed if rope.get(name) is None]
    if not problems:
        try:
            rope_from_json({"max_position_embeddings": 2} | settings)
        except ValidationError as error:
            place, what = error.errors()[0]["loc"], error.errors()[0]["msg"]
            problems.append(f"{'.'.join(map(str, place))} of the rotary positions: {what}")
    return problems


def _rope(settings: Json) -> Json:
    return settings.get("rope_scaling") or settings.get("rope_parameters") or {}


def _type(rope: Json) -> str:
    return rope.get("rope_type") or rope.get("type") or "default"
