"""Conversations as tokens: the one place that says how a chat is written down.

    <|system|>Be brief.<|end|><|user|>Who has the lamp?<|end|><|assistant|>Mira has it.<|end|>

Each message is the token of its role, its content and `<|end|>`, and nothing stands between messages: in a
small model's short rows every token counts. A model learns what an assistant says and when it stops, so the
loss mask covers the content of the assistant's messages and their `<|end|>`, not what it is told.

`CHAT_TEMPLATE` says the same for other programs. It gives the same ids as `render`, except where a message
spells a special token: here it stays text, and nobody can write the end of somebody else's turn.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hornbook.errors import UserError

if TYPE_CHECKING:
    from hornbook.tokenizer.tokenizer import Tokenizer

ROLE_TOKENS = {"user": "<|user|>", "assistant": "<|assistant|>", "system": "<|system|>"}
END_OF_TURN = "<|end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

Message = Mapping[str, Any]
"""{"role": ..., "content": ...}: whatever a file may hold, until `check_messages` has seen it."""


def render(
    messages: Sequence[Message], tokenizer: "Tokenizer", add_generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """The ids of a conversation, and for each whether it is to be learned.

    With `add_generation_prompt` it ends with the assistant's token, ready for an answer. Raises UserError
    where the messages are no conversation: see `check_messages`.
    """
    check_messages(messages, add_generation_prompt)
    end_of_turn = tokenizer.special_id(END_OF_TURN)
    ids: list[int] = []
    mask: list[bool] = []
    for message in messages:
        content = [*tokenizer.encode(message["content"]), end_of_turn]
        ids += [tokenizer.special_id(ROLE_TOKENS[message["role"]]), *content]
        mask += [False] + [message["role"] == "assistant"] * len(content)
    if add_generation_prompt:
        ids.append(tokenizer.special_id(ROLE_TOKENS["assistant"]))
        mask.append(False)
    return ids, mask


def without_oldest(messages: Sequence[Message], tokenizer: "Tokenizer", room_tokens: int) -> list[Message]:
    """The conversation without as many of its oldest turns, question and answer, as do not fit the room.

    A system message and the last message always stay, also where they alone are too long. Raises UserError where the
    messages are no conversation that ends with a question.
    """
    check_messages(messages, before_answer=True)
    n_system = int(messages[0]["role"] == "system")
    first = len(messages) - 1
    # From the newest turn back, so that what is left out is not encoded. One token opens the answer.
    n_tokens = 1 + _count_tokens([*messages[:n_system], messages[-1]], tokenizer)
    while first > n_system:
        n_tokens += _count_tokens(messages[first - 2 : first], tokenizer)
        if n_tokens > room_tokens:
            break
        first -= 2
    return [*messages[:n_system], *messages[first:]]


def _count_tokens(messages: Sequence[Message], tokenizer: "Tokenizer") -> int:
    """How many ids `render` makes of messages: their contents, and around each the role's token and `<|end|>`."""
    return sum(len(tokenizer.encode(message["content"])) + 2 for message in messages)


def check_messages(messages: Sequence[Message], before_answer: bool) -> None:
    """Raise UserError unless user and assistant take turns, the user first, after at most one system message.

    User and system must say something; an assistant may have answered nothing. `before_answer` says that an
    answer is to follow, so the user must have spoken last.
    """
    if not messages:
        raise UserError("The conversation has no messages. It needs at least one from the user.")
    expected = "user"
    for number, message in enumerate(messages, start=1):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in ROLE_TOKENS:
            raise UserError(f"Message {number} has the role {role!r}. Use one of: {', '.join(ROLE_TOKENS)}.")
        if not isinstance(content, str) or (role != "assistant" and not content.strip()):
            raise UserError(f"Message {number}, from {role}, has no text as its content. Give it some.")
        if role == "system" and number == 1:
            continue
        if role != expected:
            raise UserError(
                f"Message {number} is from {role} where one from {expected} belongs. "
                "User and assistant take turns, the user begins, and the system speaks first or never."
            )
        expected = "assistant" if expected == "user" else "user"
    if before_answer and messages[-1]["role"] != "user":
        raise UserError("The last message is not from the user, so there is nothing to answer. Add one that is.")
