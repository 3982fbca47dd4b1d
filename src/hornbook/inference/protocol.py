"""What clients may ask of the server: the fields of OpenAI's completions and chat completions that it honours.

Beside OpenAI's own there are those that other servers of open models have too: top_k, min_p, repetition_penalty.
A field that is not here is refused rather than ignored, so nobody believes in a setting that does nothing.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hornbook.inference.sampling import Sampling

MOST_ALTERNATIVES = 20
MOST_CHOICES = 8


def _is_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise ValueError("holds half of a surrogate pair, which is no character") from problem
    return text


Text = Annotated[str, AfterValidator(_is_unicode)]
StopString = Annotated[Text, Field(min_length=1, max_length=200)]
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
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    # Only what changes nothing is taken of these, since many clients send it.
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    user: str | None = None

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

    prompt: Text | TokenIds | Annotated[list[Text | TokenIds], Field(min_length=1, max_length=64)]
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


class ChatMessage(_Body):
    """One turn of a conversation."""

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
