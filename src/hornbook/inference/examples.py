"""What a run's model can be asked: the held-out conversations that fine-tuning showed answers to."""

from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from hornbook.run_directory import read_json

_MOST = 4


class _Message(BaseModel):
    role: str
    content: str


class _Conversation(BaseModel):
    messages: list[_Message]


def example_questions(run: Path) -> list[str]:
    """How some conversations begin that the run's model was not trained on; nothing where none are kept."""
    path = run / "finetune" / "answers.json"
    if not path.is_file():
        return []
    try:
        conversations = TypeAdapter(list[_Conversation]).validate_python(read_json(path))
    except ValidationError:  # a file of somebody else's
        return []
    asked = [[message.content for message in one.messages if message.role == "user"] for one in conversations]
    return list(dict.fromkeys(contents[0] for contents in asked if contents))[:_MOST]
