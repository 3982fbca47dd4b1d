"""What clients may ask of the server: the fields of OpenAI's completions and chat completions that it honours.

Beside OpenAI's own there are those that other servers of open models have too: top_k, min_p, repetition_penalty.
A field that is not here, or has no effect beside the others, is refused rather than ignored, so nobody believes in a
setting that does nothing.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hornbook.inference.sampling import LEAST_PENALTY, MOST_PENALTY, Sampling

MOST_ALTERNATIVES = 20
MOST_CHOICES = 8


def _is_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise ValueError("holds half of a surrogate pair, which is no character") from problem
    return text


Text = Annotated[str, AfterValidator(_is_unicode)]
FilledText = Annotated[str, Field(min_length=1), AfterValidator(_is_unicode)]
StopString = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_unicode)]
TokenId = Annotated[int, Field(ge=0, strict=True)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StreamOptions(_Body):
    """What a stream has beside the text."""

    include_usage: bool = False


class GenerationRequest(_Body):
    """What both endpoints take."""

    model: Text | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=1, lt=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float = Field(1.0, ge=LEAST_PENALTY, le=MOST_PENALTY)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    # Only what changes nothing is taken of these, since many clients send it.
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    # A name for the provider's own records; it has no effect anywhere.
    user: str | None = None

    @model_validator(mode="after")
    def _check_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options has no effect without stream: set stream to true, or leave it out")
        return self

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        top_p = self.top_p if self.top_p < 1 else None
        return Sampling(self.temperature, self.top_k, top_p, self.min_p, self.repetition_penalty)

    @property
    def stop_strings(self) -> list[str]:
        """Texts at which the model stops."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a count of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(GenerationRequest):
    """A text, several, or their token ids, to be continued."""

    prompt: FilledText | TokenIds | Annotated[list[FilledText | TokenIds], Field(min_length=1, max_length=64)]
    logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)
    echo: Literal[False] = False

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt


class TextPart(_Body):
    """A piece of a message's content."""

    type: Literal["text"]
    text: Text


_ONLY_ANSWERS_ARE_EMPTY: dict[str, Any] = {
    "if": {"properties": {"role": {"const": "assistant"}}},
    "else": {"properties": {"content": {"minLength": 1, "minItems": 1}}},
}
"""For the description of the interface; what is enforced, and how the refusal reads, stands in `check_messages`."""


class ChatMessage(_Body):
    """One turn of a conversation. Its name is for models that tell speakers apart, and has no effect."""

    model_config = ConfigDict(json_schema_extra=_ONLY_ANSWERS_ARE_EMPTY)

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None

    @property
    def as_message(self) -> dict[str, str]:
        """The same as the tokenizer's chat template takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(GenerationRequest):
    """A conversation to be answered."""

    messages: list[ChatMessage] = Field(min_length=1)
    # OpenAI's other interface, that of responses, has it: "auto" leaves out the oldest turns that do not fit.
    truncation: Literal["auto", "disabled"] = "disabled"
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)

    @model_validator(mode="after")
    def _check_fields_agree(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs has no effect without logprobs: set logprobs to true, or leave it out")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit: give one of them")
        return self

    @property
    def answer_tokens(self) -> int | None:
        """Tokens of the answer, at most; None: the client names no limit."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def n_alternatives(self) -> int | None:
        """Likeliest tokens to report at each place; None: no probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class Problem(BaseModel):
    """Why a request was refused, in OpenAI's words."""

    message: str
    type: str
    param: None
    code: str | None


class Refusal(BaseModel):
    """The body of every answer of 400 and above."""

    error: Problem


def reasons(errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with a body, from pydantic's errors: a sentence for each place.

    Where a field may be one thing or another, each alternative has errors. What came furthest is what was meant.
    """
    of_field: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for error in errors:
        field = tuple(takewhile(lambda part: not _is_alternative(part), error["loc"]))
        of_field.setdefault(field, []).append(error)
    told: dict[str, list[str]] = {}
    for alternatives in of_field.values():
        furthest = max(len(error["loc"]) for error in alternatives)
        meant = [error for error in alternatives if len(error["loc"]) == furthest]
        # A text that is too short is meant to be a text, though it is no list either.
        of_right_type = [error for error in meant if not error["type"].endswith("_type")]
        for error in of_right_type or meant:
            place = ".".join(str(part) for part in error["loc"][1:] if not _is_alternative(part)) or "body"
            told.setdefault(place, []).append(error["msg"].removeprefix("Value error, "))
    return [f"{place}: {_either(messages)}" for place, messages in told.items()]


def _is_alternative(part: str | int) -> bool:
    """Whether a part of an error's place is pydantic's name for one of several types, and no name of a field."""
    return isinstance(part, str) and part.startswith(("function-after[", "list["))


def _either(messages: Sequence[str]) -> str:
    first, *others = dict.fromkeys(messages)
    return " or ".join([first, *(other.removeprefix("Input should be ") for other in others)])
