"""What the fields of a recipe can hold, and what all its sections have in common."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SWITCHED_OFF = "off"


def as_tuple(value: Any) -> Any:
    """TOML has lists where recipes have tuples, and a single text may stand for a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def off_as_none(value: Any) -> Any:
    """TOML has no null, so a rule is switched off by a word."""
    return None if value == SWITCHED_OFF else value


def _presets(value: Any) -> Any:
    """A word, alone or as the only one of a list, or None, may stand for no preset at all."""
    presets = as_tuple(value)
    return () if presets in (None, ("none",), (SWITCHED_OFF,)) else presets


def rule(description: str) -> Any:
    """A field that is off where neither the recipe nor its preset sets it.

    The default is the word and not None, so that a rule that was switched off is spelled out as such.
    """
    return Field(SWITCHED_OFF, validate_default=True, description=description)


Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
SpecialTokens = Annotated[tuple[Annotated[str, Field(pattern=r"^\S+$")], ...], BeforeValidator(as_tuple)]
Weights = Annotated[tuple[Annotated[float, Field(ge=0, le=1000)], ...], BeforeValidator(as_tuple)]
Suites = Annotated[tuple[Literal["comprehension", "reasoning", "facts"], ...], BeforeValidator(as_tuple)]
Trackers = Annotated[tuple[Literal["tensorboard", "trackio", "wandb"], ...], BeforeValidator(as_tuple)]
LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Presets = Annotated[tuple[Literal["basic", "gopher", "c4", "fineweb"], ...], BeforeValidator(_presets)]
Threshold = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(off_as_none)]
Language = Annotated[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] | None, BeforeValidator(off_as_none)]
CountThreshold = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(off_as_none)]


class Section(BaseModel):
    """What all sections share: fixed once made, no unknown names, no guessing of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
